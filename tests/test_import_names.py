"""One name to import: a folder's own `configs`, `pretrain` or `animate` never takes the place of ours, in any process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.installing import build, copy_checkout, make_environment
from tests.making import ROOT, picture_folder
from tests.pretrain.published import published
from tests.test_rooms import ROOMS

HOSTILE = (
    "configs/__init__.py", "configs.py", "pretrain.py", "shards.py", "finetune/__init__.py", "animate.py",
    "cli.py", "tests/__init__.py", "benchmarks.py",
)  # fmt: skip


class Installed(NamedTuple):
    """A way to have stillreel, and a folder whose names are those of its rooms."""

    python: Path
    env: dict[str, str]
    folder: Path

    def run(self, *words: str) -> str:
        """What Python says in that folder; it must succeed."""
        said = subprocess.run(
            [self.python, *words],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout


@pytest.fixture(
    scope="module", params=["wheel", *(pytest.param(way, marks=pytest.mark.slow) for way in ("editable", "checkout"))]
)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp(request.param)
    source = copy_checkout(home / "source")
    what: dict[str, Sequence[str]] = {"editable": ("--editable", str(source)), "checkout": ()}
    words = [str(build(source, home, "wheel"))] if request.param == "wheel" else what[request.param]
    python = make_environment(home / "env", *words)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if request.param == "checkout":
        env["PYTHONPATH"] = str(source)
    folder = home / "folder"
    for name in HOSTILE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise SystemExit('hostile')\n")
    found = Installed(python, env | {"OMP_NUM_THREADS": "1"}, folder)
    home_of = Path(found.run("-c", "import stillreel; print(stillreel.__file__)").strip())
    assert home_of.is_relative_to(home), "another stillreel is imported"
    return found


@pytest.fixture(scope="module")
def clips(installed: Installed) -> str:
    """A data set that two workers of Ray's have built in the hostile folder."""
    picture_folder(installed.folder / "stills", 6)
    settings = ("workers=2", "shard_size=3", "progress=off")
    installed.run("-m", "stillreel", "animate", "stills", "clips", *settings)
    return "clips"


EXPLAIN = """
import runpy, sys
from stillreel.cli import COMMANDS

for name in COMMANDS:
    sys.argv = ["stillreel", name, "--help"]
    try:
        runpy.run_module("stillreel", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
    print("explained", name)
"""


def test_every_command_explains_itself(installed: Installed) -> None:
    from stillreel.cli import COMMANDS

    said = installed.run("-c", EXPLAIN)
    assert re.findall("^explained (.*)$", said, re.MULTILINE) == list(COMMANDS)


def test_two_workers_of_ray_build(installed: Installed, clips: str) -> None:
    installed.run("-m", "stillreel", "verify", clips, "progress=off")


def test_torchrun_trains(installed: Installed, clips: str) -> None:
    settings = ("steps=1", "batch=2", "workers=1", "frames=2", "device=cpu", "eval.data=", "progress=off")
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
    installed.run(*run, "-m", "stillreel", "pretrain", "demo", f"data={clips}", "out=run", *settings)
    assert (installed.folder / "run" / "final" / "model.safetensors").exists()


SPAWN = """
from stillreel.animate.scenes import caption_of, plan_scene
from stillreel.configs.system.pool import process_pool

if __name__ == "__main__":
    scenes = [plan_scene(0, number) for number in range(4)]
    with process_pool(2) as pool:
        assert list(pool.map(caption_of, scenes)) == [caption_of(scene) for scene in scenes]
"""


def test_spawned_processes_find_their_work(installed: Installed) -> None:
    (installed.folder / "spawn.py").write_text(SPAWN)
    installed.run("spawn.py")


# What the examples leave to their reader, and what they are run with instead of a GPU, 512 clips and a download.
GIVEN = """
import json, tarfile
from pathlib import Path

import torch

from stillreel import Recipe

with tarfile.open(sorted(Path("clips/shards").glob("*.tar"))[0]) as tar:
    members = {member.name: tar.extractfile(member).read() for member in tar}
samples = [
    (Recipe.from_json(json.loads(data)["recipe"]), members[name.removesuffix("json") + "jpg"])
    for name, data in members.items() if name.endswith(".json")
]
rank, ranks, saved, model = 0, 1, None, None
frames, frame_mask = torch.zeros(1, 5, 3, 64, 64), None
token_ids, token_mask = torch.tensor([[49406, 320, 49407]]), None

class Saved(Exception): ...

steps = []

def train(batch):
    steps.append(batch)
    if len(steps) == 3:
        raise Saved

def save(model, state):
    raise Saved

def shown(text):
    try:
        exec(compile(text, "shown", "exec"), dict(globals()))
    except Saved:
        pass
"""
INSTEAD = {
    '"cuda"': '"cpu"',
    "batch=512": "batch=2",
    '"name": "ViT-B-32-quickgelu", "pretrained": "openai"': '"name": "tiny"',
}


def snippets() -> list[str]:
    """The Python of the README and of docs/, ready to run here."""
    pages = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    found = re.findall(
        r"^```python\n(.*?)^```$", "\n".join(page.read_text() for page in pages), re.MULTILINE | re.DOTALL
    )
    text = "\0".join(found)
    for given, taken in INSTEAD.items():
        assert given in text, f"no {given} is shown any more"
        text = text.replace(given, taken)
    return text.split("\0")


def test_the_python_that_is_shown_runs(installed: Installed, clips: str) -> None:
    _, weights = published("STAN")
    torch.save(weights, installed.folder / "pytorch_model.bin.4")
    calls = [f"shown({text!r})" for text in snippets()]
    assert len(calls) == 5
    (installed.folder / "readme.py").write_text(
        "\n".join([GIVEN, 'if __name__ == "__main__":', *(f"    {call}" for call in calls)])
    )
    installed.run("readme.py")


def test_from_the_repository_s_root_too_a_module_has_one_name(stills: Path, tmp_path: Path) -> None:
    """There Python finds the rooms' folders beside stillreel/, and could import them a second time."""
    words = [
        "stillreel",
        "animate",
        str(stills),
        str(tmp_path / "clips"),
        "ray=off",
        "frames=2",
        "size=32",
        "progress=off",
    ]
    script = (
        "import runpy, sys\n"
        f"sys.argv = {words!r}\n"
        "try: runpy.run_module('stillreel', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([name for name in sys.modules if name.split('.')[0] in {ROOMS!r}])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "[]", "imported under another name"
