"""`make fuzz`: damage every kind of file that is read, in every way, and count what the readers do.

    python -m tests.fuzz [seconds=600] [seed=0] [workers=2] [target=NAME]

An input is a target and a number: both give the same bytes again, so what was found is kept by its number (test_fuzz.py).
Exits 1 when there was a traceback, a crash, a hang, a file outside of the folder, or an "all is well" of what is not.
"""

from __future__ import annotations

import sys

from tests.fuzz.bench import fuzz


def main(words: list[str]) -> int:
    given = dict(word.split("=", 1) for word in words)
    seconds, seed = float(given.get("seconds", 600)), int(given.get("seed", 0))
    counts, failures = fuzz(seconds, seed, int(given.get("workers", 2)), given.get("target", ""))
    kinds = ("traceback", "crash", "hang", "outside", "wrong OK")
    print(f"{counts['inputs']:,} inputs in {seconds:.0f} s; " + ", ".join(f"{counts[kind]} {kind}" for kind in kinds))
    print(", ".join(f"{name} {count:,}" for name, count in counts.items() if name not in ("inputs", *kinds)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
