"""commands: `stillreel animate`, `download` and `preview`, a file each."""
