"""clips: one still becomes one sample of a shard (clip, encode), and a sample becomes frames again (decode).

plans: which stills a build takes."""
