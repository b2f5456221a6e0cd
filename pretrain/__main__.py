"""`torchrun -m pretrain PRESET key=value ...`: `stillreel pretrain`, one process a rank."""

import sys

from stillreel import main

sys.exit(main(["pretrain", *sys.argv[1:]]))
