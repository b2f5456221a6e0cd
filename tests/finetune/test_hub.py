"""`push` and `pull`: what comes back from the hub is what went there, with a card; a push that was cut off goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from stillreel.configs.system.storage import Folder
from stillreel.finetune.evaluation.results import FORMAT, SCHEMA_VERSION
from stillreel.shards.format.manifest import read_manifest
from tests.finetune.search.making import write_model
from tests.hub import Written, writable_hub
from tests.making import ROOT, check, data_digests

RESULTS = {
    "format": FORMAT,
    "schema": SCHEMA_VERSION,
    "benchmark": "msrvtt",
    "variant": "1ka-9k",
    "split": "test",
    "protocol": "MSR-VTT 1k-A, 12 frames",
    "counts": {"videos": 1000, "queries": 1000, "missing": 0, "damaged": 2, "cut": 0},
    "metrics": {"t2v_r1": 44.5, "t2v_r5": 71.25},
    "settings_digest": "a" * 64,
    "queries_digest": "b" * 64,
}


# One process for all: huggingface_hub reads where the hub is once, when it is imported.
_SHELL = """
import contextlib, io, json, os, sys
from stillreel.cli import main

for line in sys.stdin:
    asked, out, err = json.loads(line), io.StringIO(), io.StringIO()
    os.environ["HF_TOKEN"] = asked["token"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(asked["words"])
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Said(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Shell:
    """Runs commands of stillreel's, to which a stand-in is the hub."""

    def __init__(self, hub: Written, process: subprocess.Popen[str]) -> None:
        self.hub, self._process = hub, process

    def run(self, *words: object, token: str = "hf_right") -> Said:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": [*map(str, words)], "token": token}) + "\n")
        self._process.stdin.flush()
        return Said(*json.loads(self._process.stdout.readline()))

    def commits(self, name: str) -> list[list[str]]:
        return [paths for to, paths in self.hub.commits if to == name]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    home = tmp_path_factory.mktemp("hub")
    with writable_hub(home / "hub") as hub:
        env = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",  # its protocol is not stood in for
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", _SHELL], env={**os.environ, **env}, cwd=ROOT, **pipes) as process:
            yield Shell(hub, process)


def front_of(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_a_data_set_goes_and_comes_back_to_the_byte(shell: Shell, built: dict[str, Path], tmp_path: Path) -> None:
    out, back, hub = built["recipe"], tmp_path / "back", shell.hub
    said = shell.run("push", out, "me/clips")
    assert said.code == 0, said.stderr
    assert said.stdout.rstrip().endswith("stillreel pull datasets/me/clips OUT")
    asked = {"name": "clips", "organization": "me", "visibility": "private", "type": "dataset"}
    assert asked in hub.made
    assert shell.commits("me/clips")[-1] == ["manifest.json"], "it is whole when all else is there"
    sent, made = len(hub.sent), len(hub.made)
    readme = hub.home / "datasets/me/clips/README.md"
    card, manifest = readme.read_text(), read_manifest(Folder(str(out)))
    assert manifest.plans[0].sha256 in card and manifest.plans[0].settings_sha256 in card
    assert str(out.parent) not in card, "where it lay is nobody's business"
    assert "license" not in front_of(card) and "# license:" in card
    assert front_of(card)["configs"][0]["data_files"] == "shards/*.tar"

    readme.write_text("of its owner\n")
    said = shell.run("push", out, "datasets/me/clips")
    assert said.code == 0, said.stderr
    assert (len(hub.sent), len(hub.made)) == (sent, made), "what is there is not sent again"
    assert readme.read_text() == "of its owner\n"

    said = shell.run("pull", "datasets/me/clips", back)
    assert said.code == 0, said.stderr
    assert data_digests(back) == data_digests(out)
    assert check(back).problems == []


def test_a_push_that_the_hub_refuses_goes_on(shell: Shell, built: dict[str, Path], tmp_path: Path) -> None:
    hub = shell.hub
    hub.refused.append(400)
    said = shell.run("push", built["frames"], "me/refused")
    assert said.code == 2 and "Run the same command again to go on" in said.stderr, said.stderr
    sent = len(hub.sent)
    assert sent and not (hub.home / "datasets/me/refused/manifest.json").exists()
    said = shell.run("pull", "datasets/me/refused", tmp_path / "half")
    assert said.code == 1 and "has no manifest.json" in said.stderr, said.stderr
    said = shell.run("push", built["frames"], "me/refused")
    assert said.code == 0, said.stderr
    assert len(hub.sent) == sent, "what had arrived is not sent again"


def test_a_run_s_model_goes_with_its_figures_and_is_read_by_its_folder(shell: Shell, tmp_path: Path) -> None:
    run, back = tmp_path / "run", tmp_path / "back"
    write_model(run / "final", "mean")
    (run / "results.json").write_text(json.dumps(RESULTS))
    said = shell.run("push", run, "me/model", "private=false", "license=apache-2.0")
    assert said.code == 0, said.stderr
    assert shell.hub.made[-1]["visibility"] == "public"
    assert shell.commits("me/model")[-1] == ["config.json"]
    card = (shell.hub.home / "models/me/model/README.md").read_text()
    assert front_of(card)["license"] == "apache-2.0"
    assert "MSR-VTT 1k-A, 12 frames" in card and "| t2v_r1 | 44.50 |" in card and "2 damaged" in card
    said = shell.run("pull", "me/model", back)
    assert said.code == 0, said.stderr
    for name in ("model.safetensors", "config.json"):
        assert (back / name).read_bytes() == (run / "final" / name).read_bytes()
    assert shell.run("export", back, tmp_path / "out", "towers=none").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "nothing", "me/x"), "neither a finished data set of stillreel's, nor a model"),
        (("push", "model", "x"), "expected OWNER/NAME of a model, or datasets/OWNER/NAME"),
        (("push", "model", "datasets/me/x"), "is a model, and REPO datasets/me/x a data set's name"),
        (("pull", "me/none", "out"), "REPO me/none: the hub says"),
        (("pull", "me/none", "model"), "holds something that was not pulled"),
    ],
)
def test_what_cannot_be_is_one_sentence(shell: Shell, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "mean")
    places = [str(tmp_path / word) if word in ("nothing", "model", "out") else word for word in words]
    answer = shell.run(*places)
    assert answer.code == 2 and said in answer.stderr, answer.stderr


def test_a_wrong_token_is_told(shell: Shell, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "mean")
    said = shell.run("push", tmp_path / "model", "me/x", token="hf_wrong")
    assert said.code == 2 and "is HF_TOKEN that of its owner" in said.stderr, said.stderr


def test_datasets_reads_our_shards(built: dict[str, Path], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not among those of the tests")
    shards = shutil.copytree(built["recipe"] / "shards", tmp_path / "shards")
    found = datasets.load_dataset(
        "webdataset", data_files=str(shards / "*.tar"), split="train", cache_dir=str(tmp_path / "cache"), streaming=True
    )
    rows = list(found)
    assert len(rows) == 25
    assert all(row["txt"] and row["json"]["recipe"] and row["jpg"].size for row in rows)
