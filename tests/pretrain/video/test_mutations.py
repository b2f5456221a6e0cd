"""Videos whose headers are changed at random: each gives a clip or a trouble by name, within bounds of time and memory.

    python -m tests.pretrain.video.test_mutations FOLDER SEED FIRST LAST      the child that decodes; a line of JSON a file

`decode_mutants` may be called for any count; a mutant is known by seed and number, and `mutant` makes it again.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.making import ROOT

MOST_SECONDS, MOST_MIB = 10.0, 1024.0
_KINDS = ("mp4", "frag.mp4", "mkv", "avi", "ts")
_HEADER = 3000  # bytes of a file in which most changes fall: mp4's boxes lie in front here
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63)


class Outcome(NamedTuple):
    """What became of a mutant. `said`: "ok", a key of TROUBLES, or what else happened, which is a fault."""

    number: int
    said: str
    seconds: float  # of CPU
    peak: float  # MiB, resident, of the process that decoded it

    @property
    def is_fault(self) -> bool:
        from stillreel.pretrain.video import TROUBLES

        named = self.said == "ok" or self.said in TROUBLES
        return not named or self.seconds > MOST_SECONDS or self.peak > MOST_MIB


def write_originals(folder: Path) -> None:
    from tests.pretrain.video.making import write_video

    options = {"mp4": {"movflags": "faststart"}, "frag.mp4": {"movflags": "frag_keyframe+empty_moov"}}
    for kind in _KINDS:
        codec, how = ("mpeg4", {"qscale": "5"}) if kind == "avi" else ("libx264", {"crf": "30", "g": "8", "bf": "2"})
        write_video(folder / f"v.{kind}", 24, codec=codec, options=how, container_options=options.get(kind))


def mutant(folder: Path, seed: int, number: int) -> tuple[str, bytes]:
    """A kind of file, and the bytes of a changed one."""
    dice = random.Random(f"{seed}/{number}")
    kind = _KINDS[number % len(_KINDS)]
    data = bytearray((folder / f"v.{kind}").read_bytes())
    for _ in range(dice.randint(1, 6)):
        end = len(data) if dice.random() < 0.1 else min(len(data), _HEADER)
        at = dice.randrange(max(end, 1))
        change = dice.random()
        if change < 0.4:
            data[at : at + 1] = bytes([dice.randrange(256)])
        elif change < 0.8:
            length = dice.choice((1, 2, 4, 4, 8))
            value = dice.choice((*_EXTREMES, dice.getrandbits(64))) & ((1 << 8 * length) - 1)
            data[at : at + length] = value.to_bytes(length, dice.choice(("big", "little")))
        elif change < 0.9:
            start = dice.randrange(len(data))
            data[at:at] = data[start : start + dice.randint(1, 400)]
        elif change < 0.97:
            del data[at : at + dice.randint(1, 64)]
        else:
            del data[max(at, 64) :]
    return kind, bytes(data)


def decode_mutants(count: int, seed: int = 0) -> list[Outcome]:
    """Decode so many in a process of their own, which is started anew when it dies or hangs."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        write_originals(Path(folder))
        while len(outcomes) < count:
            outcomes += _decode_from(folder, seed, len(outcomes), count)
    return outcomes


def _decode_from(folder: str, seed: int, first: int, last: int) -> list[Outcome]:
    words = ["-m", "tests.pretrain.video.test_mutations", folder, str(seed), str(first), str(last)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        assert child.stdout is not None
        found = [Outcome(*json.loads(line)) for line in child.stdout]
        status = child.wait()
        errors.seek(0)
        said = errors.read().strip()
    if len(found) == last - first:
        return found
    number = first + len(found)
    assert found or "Traceback" not in said, said  # the child itself, not a file
    return [*found, Outcome(number, f"the process ended with {status}: {said[-2000:]}", 0.0, 0.0)]


def _decode(folder: Path, seed: int, numbers: range) -> None:
    import resource

    from stillreel.configs.video import VideoSettings
    from stillreel.pretrain.video import VideoError, VideoReader

    reader = VideoReader(VideoSettings(frames=4, size=64))
    for number in numbers:
        kind, data = mutant(folder, seed, number)
        file = folder / f"mutant.{kind}"
        file.write_bytes(data)
        spent = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent + 3 * MOST_SECONDS), resource.RLIM_INFINITY))  # it hangs
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        try:
            reader.read(file)
            said = "ok"
        except VideoError as trouble:
            said = trouble.reason
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = int(status["VmHWM"].split()[0]) / 1024
        print(json.dumps(Outcome(number, said, time.process_time() - spent, peak)), flush=True)


def check(outcomes: list[Outcome]) -> None:
    faults = [outcome for outcome in outcomes if outcome.is_fault]
    assert not faults, f"{len(faults)} of {len(outcomes)}: {faults[:5]}"
    said = {outcome.said for outcome in outcomes}
    assert "ok" in said and len(said) > 3, f"mutants are all alike: {said}"


def test_three_hundred_changed_headers_end_as_clips_or_troubles() -> None:
    check(decode_mutants(300))


@pytest.mark.slow
def test_ten_thousand_changed_headers_end_as_clips_or_troubles() -> None:
    check(decode_mutants(10_000, seed=1))


def test_a_mutant_can_be_made_again(tmp_path: Path) -> None:
    write_originals(tmp_path)
    assert mutant(tmp_path, 0, 7) == mutant(tmp_path, 0, 7) != mutant(tmp_path, 1, 7)


if __name__ == "__main__":
    _decode(Path(sys.argv[1]), int(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])))
