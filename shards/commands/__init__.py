"""commands: `stillreel verify`, `stats` and `catalog`, a file each."""
