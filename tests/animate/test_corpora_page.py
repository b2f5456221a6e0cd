"""Every example of docs/corpora.md, as a shell runs it, makes a data set of two clips."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import ROOT, check, jpeg

EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "corpora.md").read_text(), re.MULTILINE | re.DOTALL)


def test_there_is_one_for_each_layout() -> None:
    assert len(EXAMPLES) == 11


@pytest.mark.parametrize("script", EXAMPLES, ids=[script.strip().splitlines()[-1] for script in EXAMPLES])
def test_an_example(script: str, tmp_path: Path) -> None:
    for number, name in enumerate(("a.jpg", "b.jpg")):
        (tmp_path / name).write_bytes(jpeg(number))
    called = script.replace("stillreel animate in out", "python -m stillreel animate in out ray=inline max_rejects=1")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", called],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = check(tmp_path / "out")
    assert (verdict.written, verdict.problems) == (2, []), done.stdout + done.stderr
