"""`torchrun -m pretrain PRESET key=value ...`: `stillreel pretrain`, one process a rank."""

import sys

from stillreel import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
