"""download: tables of URLs (urls) fetched by img2dataset, in a process of its own (fetch)."""
