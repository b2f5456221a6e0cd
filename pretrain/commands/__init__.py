"""commands: `stillreel pretrain`, `stream` and `doctor`, a file each."""
