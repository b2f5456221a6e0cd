"""A worker stays under 1 GiB, whatever a picture is or claims to be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.animate.giants import GIANTS
from tests.making import ROOT

_MOST = 1024 - 150  # MiB: the rest is what a worker holds beside the picture
_SOON = (
    "PNG gray 16",
    "PNG RGBA 16 interlaced",
    "PNG zTXt bomb",
    "PNG iCCP bomb",
    "JPEG progressive, 4:4:4",
    "JPEG turned, with a profile",
    "JPEG 2000 of tiny tiles",
    "TIFF one strip, CMYK, turned",
    "TIFF small with a huge tile",
    "TIFF of 20 million offsets",
    "GIF of a huge canvas",
    "ICO with a PNG bomb",
)
_REFUSED = (
    "beyond",
    "bomb",
    "huge tile",
    "million",
    "huge canvas",
    "tiny tiles",
    "one strip, RGBA 16",
    "lies",
)
_TAKEN = (
    "JPEG progressive, 4:4:4",
    "PNG gray 16",
    "PNG RGBA 16 interlaced",
    "TIFF one strip",
    "WebP lossless",
    "AVIF",
    "GIF",
)


def check(names: Sequence[str]) -> None:
    command = [sys.executable, "-m", "tests.animate.giants", *names]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    found = {name: (peak, outcome) for name, peak, outcome in map(json.loads, said.splitlines())}
    assert list(found) == list(names)
    for name, (peak, outcome) in found.items():
        assert 0 < peak < _MOST, (name, peak, outcome)
        if any(word in name for word in _REFUSED) and name != "AVIF that lies":
            assert outcome in ("too_large", "corrupt"), (name, outcome)
        assert outcome == "ok" or name not in _TAKEN, (name, outcome)


def test_giants_take_a_bounded_part_of_memory() -> None:
    check(_SOON)


@pytest.mark.slow
def test_all_giants_take_a_bounded_part_of_memory() -> None:
    assert len(GIANTS) >= 50
    check([name for name in GIANTS if name not in _SOON])
