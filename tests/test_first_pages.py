"""The first page of each of five people (docs/start/): what it shows is run, command by command, from an installed wheel.

`pip install '.[...]'` is the wheel itself, beside what is installed here. The words shown are never changed; after them a test
says what makes the job small. Weights that would be fetched are random ones under the real name in the hub's cache.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from open_clip import get_pretrained_cfg
from safetensors.torch import save_file

from stillreel.pretrain.model.pretrained import named_cfg
from stillreel.pretrain.model.towers import build_towers
from tests.animate.test_download import Server, cc3m
from tests.finetune.benchmarks.making import lines, write
from tests.finetune.search.making import write_videos
from tests.installing import build, copy_checkout, make_environment
from tests.making import ROOT, jpeg, write_tar
from tests.pretrain.published import published

_LIMIT = 500  # seconds that a command may take, where other tests run beside it


def shown_on(page: str) -> list[str]:
    """The command lines of a first page, down to where it sends its reader on."""
    text = (ROOT / "docs" / "start" / f"{page}.md").read_text().partition("Next:")[0]
    return re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)


class Person(NamedTuple):
    """Somebody with the wheel installed, and an empty folder."""

    binaries: Path
    env: dict[str, str]
    folder: Path

    def words(self, line: str, small: dict[str, str]) -> list[str]:
        """A command line that is shown, and the settings that make it small."""
        program, command, *rest = shlex.split(line)
        assert program == "stillreel" and not set(";&|") & set(line), f"not one plain command: {line}"
        return [str(self.binaries / program), command, *rest, *small.pop(command, "").split()]

    def follow(self, page: str, **small: str) -> dict[str, str]:
        """Run every line of the page; what each command printed, the first that has its name."""
        first, *others = shown_on(page)
        assert re.fullmatch(r"pip install '\.\[[a-z,]+\]'", first), first
        self._has_extras(first.split("[")[1].split("]")[0].split(","))
        said: dict[str, str] = {}
        for line in others:
            words = self.words(line, small)
            told = self._serve(words) if words[1] == "serve" else self._run(words)
            said.setdefault(words[1], told)
        assert not small, f"the page shows no {', '.join(small)}"
        return said

    def _run(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=_LIMIT, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _serve(self, words: list[str]) -> str:
        """The page of a server, which is ended then."""
        with subprocess.Popen(words, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                line = server.stdout.readline()
                address = re.search(r"http://\S+", line)
                assert address, line
                with urllib.request.urlopen(address[0], timeout=60) as answer:
                    return str(answer.read().decode())
            finally:
                server.terminate()

    def _has_extras(self, names: list[str]) -> None:
        code = "from importlib.metadata import metadata; print(*metadata('stillreel').get_all('Provides-Extra'))"
        assert {*names} <= {*self._run([str(self.binaries / "python"), "-c", code]).split()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The programs of an environment that has the wheel, and a place for folders."""
    home = tmp_path_factory.mktemp("first")
    wheel = build(copy_checkout(home / "source"), home, "wheel")
    yield make_environment(home / "env", str(wheel)).parent, home
    shutil.rmtree(home)  # weights and models of CLIP's real size


@pytest.fixture
def person(installed: tuple[Path, Path], request: pytest.FixtureRequest) -> Person:
    binaries, home = installed
    folder = home / request.node.name
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return Person(binaries, env | {"HF_HOME": str(home / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, folder)


@pytest.fixture(scope="module")
def clip_in_cache(installed: tuple[Path, Path]) -> None:
    """Random weights of OpenAI's ViT-B/32 where huggingface_hub keeps what open_clip asks it for."""
    name = "ViT-B-32-quickgelu"
    repository = get_pretrained_cfg(name, "openai")["hf_hub"].rstrip("/")
    torch.manual_seed(0)
    clip = build_towers(named_cfg(name), {})
    kept, revision = installed[1] / "hub" / "hub" / f"models--{repository.replace('/', '--')}", "0" * 40
    write(kept / "refs" / "main", revision)
    snapshot = kept / "snapshots" / revision
    snapshot.mkdir(parents=True)
    save_file(
        {key: tensor.half().contiguous() for key, tensor in clip.state_dict().items()},
        snapshot / "open_clip_model.safetensors",
        {"format": "pt"},
    )


def msrvtt(folder: Path) -> None:
    """MSR-VTT as it is published, of four videos to train on and two to test, under its own names."""
    train, test = [f"video{number}" for number in range(4)], ["video7020", "video7021"]
    videos = write_videos(folder / "videos" / "all", 6)
    for made, name in zip(sorted(videos.iterdir()), (*train, *test), strict=True):
        made.rename(videos / f"{name}.mp4")
    sentences = [{"video_id": name, "caption": f"this is {name}", "sen_id": at} for at, name in enumerate(train + test)]
    write(folder / "MSRVTT_data.json", {"videos": [{"video_id": one} for one in train + test], "sentences": sentences})
    write(folder / "MSRVTT_train.9k.csv", lines("video_id", *train))
    rows = [f"ret{at},msr{one[5:]},{one},a thing of {one} moves" for at, one in enumerate(test)]
    write(folder / "MSRVTT_JSFUSION_test.csv", lines("key,vid_key,video_id,sentence", *rows))


def test_who_has_an_image_caption_corpus(person: Person) -> None:
    for shard in range(2):
        keys = [f"{shard:05d}{number:04d}" for number in range(3)]
        members = [
            (f"{key}.{ending}", data)
            for at, key in enumerate(keys)
            for ending, data in (
                ("jpg", jpeg(3 * shard + at)),
                ("json", json.dumps({"key": key, "caption": f"picture {key}"}).encode()),
                ("txt", f"picture {key}".encode()),
            )
        ]
        write_tar(person.folder / "cc3m" / f"{shard:05d}.tar", members)
        write(person.folder / "cc3m" / f"{shard:05d}_stats.json", {"count": 3, "successes": 3})
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.there = {0, 1, 2}
        cc3m(person.folder / "cc3m.tsv", server, 3)
        person.follow("corpus", animate="workers=2", download="processes=1")
        server.shutdown()
    assert (person.folder / "clips" / "preview.html").is_file()
    assert json.loads((person.folder / "clips" / "manifest.json").read_text())
    assert [*(person.folder / "stills").rglob("*.tar")]


def test_who_has_a_peers_checkpoint(person: Person) -> None:
    msrvtt(person.folder / "MSRVTT")
    torch.save(published("CLIP4Clip meanP")[1], person.folder / "pytorch_model.bin.4")
    said = person.follow("checkpoint", evaluate="allow_missing=true workers=0 size=64 context_length=16")
    assert "1k-A" in said["evaluate"] and "R@1" in said["evaluate"]
    assert (person.folder / "model" / "config.json").is_file()


@pytest.mark.usefixtures("clip_in_cache")
def test_who_has_a_folder_of_videos(person: Person) -> None:
    write_videos(person.folder / "videos", 3)
    said = person.follow("videos", serve="port=0")
    assert "<title>" in said["serve"]
    assert len(re.findall(r"video-0\d\.mp4", said["search"])) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("clip_in_cache")
def test_who_has_msrvtt_and_a_gpu(person: Person) -> None:
    msrvtt(person.folder / "MSRVTT")
    small = "allow_missing=true steps=1 batch=2 frames=2 workers=0 optimizer.warmup_steps=1 device=cpu"
    said = person.follow("benchmark", finetune=small)
    results = json.loads((person.folder / "ft" / "results.json").read_text())
    assert results["protocol"] in said["finetune"] and results["counts"]["videos"] == 2


@pytest.mark.slow
def test_who_tries_it(person: Person) -> None:
    said = person.follow("try", demo="stills=60 heldout=16 contents=4 steps=3 workers=2")
    page = person.folder / "demo" / "report.html"
    assert said["demo"].rstrip().endswith(page.as_uri()) and page.is_file()
    assert (person.folder / "demo" / "clips" / "preview.html").is_file()


def test_everybody_is_followed() -> None:
    text = Path(__file__).read_text()
    assert {*re.findall(r'follow\("([a-z]+)"', text)} == {page.stem for page in (ROOT / "docs" / "start").glob("*.md")}
