"""stillreel as a user has it: a wheel, an editable install or a bare checkout, in an environment where nothing else is ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.making import ROOT


def copy_checkout(to: Path) -> Path:
    """A clean checkout with the working tree's changes: what lies about there, and git ignores, is left behind."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():  # it may have been removed, and not yet committed
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    return to


def build(source: Path, to: Path, kind: str) -> Path:
    """The `wheel` or the `sdist` of a checkout."""
    words = ["build", "-q", f"--{kind}", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(to)]
    _uv(*words, str(source))
    (found,) = to.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return found


def make_environment(home: Path, *what: str) -> Path:
    """The Python of a new environment with `what` (arguments of pip's) installed, beside what is installed for this one."""
    _uv("venv", "-q", "--python", sys.executable, str(home))
    python = home / "bin" / "python"
    # By its path alone: this environment's own stillreel is found by a .pth file of it, which is not read so.
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if what:
        _uv("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--python", str(python), *what)
    return python


def _uv(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
