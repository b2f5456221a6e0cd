"""A video that crashes its decoder is one rejected row of stored frames; one that cannot be read now is no reject."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.finetune.running import finetune_words
from tests.making import ROOT, check, rows_of, stillreel

_DEADLY = """
import os, signal
from stillreel.pretrain.video.decode import FrameDecoder

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


_GONE = """
import os
from stillreel.pretrain.video.container import OpenVideo

begin = OpenVideo.__init__

def gone(self, path, *given):
    if os.path.basename(path) == "{name}" and os.path.exists(path):
        os.rename(path, "{elsewhere}")
    begin(self, path, *given)

OpenVideo.__init__ = gone
"""


def test_a_video_that_is_gone_since_it_was_planned_fails_its_shard(moving: Path, tmp_path: Path) -> None:
    own = shutil.copytree(moving, tmp_path / "moving")
    video = sorted(own.rglob("*.mp4"))[4]
    (tmp_path / "sitecustomize.py").write_text(_GONE.format(name=video.name, elsewhere=tmp_path / "elsewhere.mp4"))
    words = finetune_words(own, tmp_path / "store", prepare="true")
    said = stillreel(*words, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert said.returncode == 1 and "1 of 1 shards failed after 3 attempts" in said.stderr and video.name in said.stderr
    assert not (tmp_path / "store" / "manifest.json").exists()
    (tmp_path / "elsewhere.mp4").rename(video)
    again = stillreel(*words)
    assert again.returncode == 0, again.stderr
    assert "written 36 + rejected 0" in again.stdout
