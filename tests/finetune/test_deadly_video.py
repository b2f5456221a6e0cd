"""A video that crashes its decoder is one rejected row of stored frames; the others of its shard are stored."""

from __future__ import annotations

import os
from pathlib import Path

from tests.finetune.running import finetune_words
from tests.making import ROOT, check, rows_of, stillreel

_DEADLY = """
import os, signal
from stillreel.finetune.video.decode import FrameDecoder

begin = FrameDecoder.__init__

def deadly(self, video, max_seconds):
    if os.path.basename(video.path) == "{name}":
        os.kill(os.getpid(), signal.SIGSEGV)
    begin(self, video, max_seconds)

FrameDecoder.__init__ = deadly
"""


def test_a_video_that_crashes_its_decoder_is_rejected(moving: Path, tmp_path: Path) -> None:
    name = sorted(path.name for path in moving.rglob("*.mp4"))[4]
    (tmp_path / "sitecustomize.py").write_text(_DEADLY.format(name=name))
    words = finetune_words(moving, tmp_path / "store", prepare="true")
    said = stillreel(*words, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert said.returncode == 0, said.stderr
    assert "written 35 + rejected 1 (crashed 1)" in said.stdout
    assert [row["reason"] for row in rows_of(tmp_path / "store") if row["source"] == name] == ["crashed"]
    assert not check(tmp_path / "store").problems
