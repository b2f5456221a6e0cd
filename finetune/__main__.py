"""`torchrun -m finetune msrvtt ...` is `stillreel finetune msrvtt ...` in several processes; evaluate as the first word, too."""

import sys

from stillreel import main

if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(words if words[:1] == ["evaluate"] else ["finetune", *words]))
