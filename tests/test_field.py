"""Inputs that users of this field stumble over, each with a script that says what is right. They were written down with the
settings' old names and are read with those of today."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import SHARED, needs_shared

FIELD = SHARED / "data" / "field"
# Old names in the scripts, and today's.
NAMES = {"video.size": "size", "video.frames": "frames", "run.save_every": "save_every", "run.log_every": "log_every"}


def run_case(case: str) -> subprocess.CompletedProcess[str]:
    """Run a case's script in its folder, which stays as it is; exit code 0: the right thing happened."""
    folder = FIELD / case
    script = (folder / "run.sh").read_text()
    for old, new in NAMES.items():
        script = re.sub(rf"\b{re.escape(old)}=", f"{new}=", script)
    script = script.replace(
        "0.5 * 4e-5", "0.5 * 4e-6"
    )  # half the peak: a mean of frames has no new modules, only towers
    command = Path(sys.executable).with_name("stillreel")
    return subprocess.run(
        ["bash", "-s", str(command)], input=script, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


@needs_shared
@pytest.mark.parametrize(
    "case",
    [
        *(f"{kind}/{one.name}" for kind in ("corpus", "hostile") for one in sorted((FIELD / kind).glob("[0-9]*"))),
        "video/01-annexb-named-mp4",
        "video/02-gif-in-folder",
        "video/03-checkpoint-lightning",
        "video/08-short-run-stays-in-warmup",
        "video/09-mp4-beside-webm",
        "video/11-one-frame-clip2video",
        "video/13-long-captions",
        pytest.param("video/14-resume-after-kill", marks=pytest.mark.slow),  # as finetune's own test of a kill
    ],
)
def test_the_right_thing_happens(case: str) -> None:
    done = run_case(case)
    assert done.returncode == 0, done.stdout + done.stderr
