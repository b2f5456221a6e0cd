"""`python -m stillreel COMMAND ...` and `torchrun -m stillreel pretrain ...`: the command line, one process a rank."""

import sys

from stillreel.cli import main

if __name__ == "__main__":
    sys.exit(main())
