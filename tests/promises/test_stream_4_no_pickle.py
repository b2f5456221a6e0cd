"""Promise 4 of the stream: no pickle is ever decoded; decoders are an allow-list; decompression bombs are refused from the
header.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from stillreel.configs import DataError, RequestError
from stillreel.configs.stream import CatalogSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.commands.catalog import run
from stillreel.shards.format.index import encode_index, entry_of
from stillreel.shards.format.writer import TarWriter
from stillreel.shards.stream.stream import open_blend
from tests.making import jpeg, stillreel, write_tar
from tests.streaming import settings_of, write_set


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def poison(ending: str, trace: Path) -> bytes:
    if ending != "npy":
        return pickle.dumps(Payload(trace))
    sink = io.BytesIO()
    np.save(sink, np.array([Payload(trace)], dtype=object), allow_pickle=True)
    return sink.getvalue()


def replace_first_sample(data: Path, members: dict[str, bytes]) -> None:
    """A data set of one shard whose only sample holds these members, with an index that vouches for its bytes."""
    tar_path = data / "shards" / "clips-000000.tar"
    with open(tar_path, "wb") as file:
        tar = TarWriter(file)
        span = tar.add([(f"clips_000000000.{ending}", payload) for ending, payload in members.items()])
        tar.finish()
    tar_path.with_suffix(".idx").write_bytes(encode_index([entry_of("clips_000000000", span)]))


ENDINGS = ["pkl", "pyd", "pth", "npy", "pickle", "pt", "npz", "001.pkl"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_catalog_refuses_a_tar_that_holds_code(ending: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    members = [("a.jpg", jpeg()), ("a.txt", b"a dog"), (f"b.{ending}", poison(ending.rpartition(".")[2], trace))]
    write_tar(tmp_path / "tars" / "0.tar", members)
    with pytest.raises(
        RequestError, match=f"0.tar is refused: b.{ending}: no decoder for .{ending}; only .* never a pickle"
    ):
        run(str(tmp_path / "tars"), str(tmp_path / "out"), CatalogSettings(progress="off"))
    assert not (tmp_path / "out" / "catalog.json").exists()
    assert not trace.exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_stream_refuses_a_sample_that_holds_code(ending: str, tmp_path: Path) -> None:
    """In a data set whose index vouches for it: the digest is right, the member is still not decoded."""
    trace = tmp_path / "trace"
    data = write_set(tmp_path / "set", [1])
    replace_first_sample(data, {"jpg": jpeg(), "txt": b"a dog", ending: poison(ending.rpartition(".")[2], trace)})
    with pytest.raises(DataError, match=f"no decoder for .{ending}"):
        next(iter(ClipLoader(open_blend(str(data)), settings_of(), Share(1))))
    assert not trace.exists()


def test_the_payload_would_leave_its_trace(tmp_path: Path) -> None:
    """The tests above can fail."""
    pickle.loads(poison("pkl", tmp_path / "trace"))
    np.load(io.BytesIO(poison("npy", tmp_path / "other")), allow_pickle=True)
    assert (tmp_path / "trace").exists() and (tmp_path / "other").exists()


def huge_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header claims other sizes."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("told", [(65000, 65000), (160, 120)])
def test_bomb_in_our_shards_is_refused_from_its_header(tmp_path: Path, told: tuple[int, int]) -> None:
    """Whether its recipe knows of the size or not."""
    data = write_set(tmp_path / "set", [1])
    recipe = {
        "version": 1, "renderer": 1, "grammar": "film", "picture": list(told), "caption": 0, "flip": False,
        "shots": [{"move": "static", "span": [0, 1], "start": {"x": 0.5, "y": 0.5, "scale": 1.0}}],
    }  # fmt: skip
    described = json.dumps({"recipe": recipe, "captions": ["a"], "source_key": "0"}).encode()
    replace_first_sample(data, {"jpg": huge_jpeg(65000, 65000), "json": described, "txt": b"a"})
    with pytest.raises(DataError, match="its picture claims 65000 x 65000 pixels"):
        next(iter(ClipLoader(open_blend(str(data)), settings_of(), Share(1))))


def test_bomb_in_a_foreign_tar_is_refused_from_its_header(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "0.tar", [("a.jpg", huge_jpeg(60000, 50000)), ("a.txt", b"a dog")])
    assert run(str(tmp_path / "tars"), str(tmp_path / "out"), CatalogSettings(progress="off")) == 0
    with pytest.raises(DataError, match="too_large: 60000 x 50000 pixels"):
        next(iter(ClipLoader(open_blend(str(tmp_path / "out")), settings_of(), Share(1))))


def test_command_refuses_without_a_traceback(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "0.tar", [("a.pkl", poison("pkl", tmp_path / "trace"))])
    said = stillreel("catalog", tmp_path / "tars", tmp_path / "out")
    assert said.returncode == 2
    assert "0.tar is refused: a.pkl" in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "trace").exists()
