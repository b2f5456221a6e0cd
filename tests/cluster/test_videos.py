"""Videos on a cluster of three hosts of which one is powered off: prepared frames and an index have the bytes of one process, and
nothing that was finished is decoded again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.hosts import ADDRESS, MARKS
from tests.finetune.running import finetune_words
from tests.finetune.search.making import FRAMES, SIZE, write_model, write_videos
from tests.making import check, data_digests, stillreel

_VIDEOS = 200
_AT_ONCE = 5  # videos of a shard, or of a part
_BEFORE = 8  # of those are finished when the host ends
_PATIENCE_S = 400.0
# Stored frames lie in shards of a hundred videos, of which 200 would make two tasks.
_SMALL = f"""
import sys
from stillreel.cli import main
from stillreel.finetune.data import prepare

prepare._SHARD_SIZE = {_AT_ONCE}
sys.exit(main(sys.argv[1:]))
"""

pytestmark = MARKS


@pytest.fixture(scope="module")
def videos(home: Path) -> Path:
    folder = write_videos(home / "videos", _VIDEOS)
    lines = [f"{path.name}\tvideo {path.name}\ttrain" for path in sorted(folder.glob("*.mp4"))]
    (folder / "captions.tsv").write_text("\n".join(["video\tcaption\tsplit", *lines[:-1], lines[-1][:-5] + "test\n"]))
    return folder


def assert_made_while_a_host_ends(cluster: Cluster, words: Sequence[str], done: Path, pattern: str) -> str:
    """The command ends well on the first host, though the third one is powered off in the middle of a task, when some files of
    the pattern are there; none of those that were ever seen is written again. What it has said."""
    host, log = cluster.machines[2], done.parent / "said"
    seen: dict[str, int] = {}
    is_off, end = False, time.monotonic() + _PATIENCE_S
    with log.open("wb") as output:
        process = cluster.machines[0].start(*words, output=output)
    try:
        while process.poll() is None:
            assert time.monotonic() < end, log.read_text()
            seen_now = {str(path): path.stat().st_mtime_ns for path in done.glob(pattern) if path.exists()}
            assert seen_now == seen_now | {name: at for name, at in seen.items() if name in seen_now}
            seen |= seen_now
            if not is_off and len(seen) >= _BEFORE and host.processes("ray::run_errand"):
                host.power_off()
                is_off = True
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == 0, log.read_text()
    assert is_off and len(seen) > _BEFORE, log.read_text()
    return log.read_text()


def test_prepare(cluster: Cluster, videos: Path, out: Path) -> None:
    alone = out.parent / "alone"
    words = finetune_words(videos, alone, prepare="true", progress="off")
    subprocess.run([sys.executable, "-c", _SMALL, *words], check=True)
    assert sum(name.endswith(".tar") for name in data_digests(alone)) == _VIDEOS // _AT_ONCE
    words = finetune_words(videos, out, prepare="true", progress="off", ray=ADDRESS)
    said = assert_made_while_a_host_ends(cluster, [sys.executable, "-c", _SMALL, *words], out, "shards/*.json")
    assert data_digests(out) == data_digests(alone)
    assert not check(out).problems
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    made = Counter(event["shard"] for event in events if event["event"] == "shard")
    assert len(made) == made.total() == _VIDEOS // _AT_ONCE, "each shard has one receipt"
    assert not [event for event in events if event["event"] == "attempt_failed"], said
    assert len({event["host"] for event in events if event["event"] == "shard"}) > 1


@pytest.mark.parametrize("encoder", ["", "far=1"])
def test_index(cluster: Cluster, videos: Path, out: Path, encoder: str) -> None:
    """Each task encodes what it decodes, or asks the second and third hosts, of which one ends with its encoder."""
    model, alone = write_model(out.parent / "model"), out.parent / "alone"
    values = {"checkpoint": model, "frames": FRAMES, "size": SIZE, "video.per_second": 2, "device": "cpu"}
    values |= {"batch": _AT_ONCE, "part": _AT_ONCE, "encoder.resources": encoder}
    words = [f"{key}={value}" for key, value in values.items()]
    here = stillreel("index", videos, alone, *words, OMP_NUM_THREADS="1")  # as many as a task has CPUs
    assert here.returncode == 0, here.stderr
    command = [sys.executable, "-m", "stillreel", "index", str(videos), str(out), *words, f"ray={ADDRESS}"]
    said = assert_made_while_a_host_ends(cluster, command, out, "work-*/part-*.safetensors")
    assert "attempt" not in said.replace("have lost no attempt", ""), said
    assert digests(out) == digests(alone)
    assert not list(out.glob("work-*"))
    looked = stillreel("index", videos, out, *words, f"ray={ADDRESS}")
    assert f"{_VIDEOS} known, 0 to index" in looked.stdout, looked.stderr


def digests(out: Path) -> dict[str, str]:
    files = (path for path in out.iterdir() if path.name != ".lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
