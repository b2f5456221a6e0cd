"""Checkpoint files: every kind reads to the same tensors; what is damaged or hostile is refused, and nothing is executed."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.pretrain.model.files import read_checkpoint, read_tensors
from tests.pretrain import containers
from tests.pretrain.containers import WRITERS


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Every shape that a state dict has: a scalar, a half, an integer, a transposed view, one storage under two names."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(6, 4, generator=generator)
    return {
        "logit_scale": torch.tensor(4.6052),
        "visual.conv1.weight": torch.randn(4, 3, 2, 2, generator=generator).half(),
        "visual.proj": torch.randn(5, 4, generator=generator).T,
        "visual.ln.num_batches": torch.tensor(7),
        "token_embedding.weight": table,
        "head.weight": table,
        "empty": torch.zeros(0, 4),
    }


def assert_same(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("kind", WRITERS)
def test_every_container_reads_to_the_tensors_that_were_written(
    kind: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    assert_same(read_tensors(WRITERS[kind](tmp_path / "file", state)), state)


def test_safetensors_whose_length_reads_as_a_pickle_is_safetensors(tmp_path: Path) -> None:
    """The file begins with the length of its header: at 0x180 bytes, with the first byte of every pickle."""
    for length in range(1, 60):
        path = containers.write_safetensors(tmp_path / "file", {"a" * length * 4: torch.ones(1)})
        assert len(read_tensors(path)) == 1
    assert any(
        containers.write_safetensors(tmp_path / "file", {"a" * length * 4: torch.ones(1)}).read_bytes()[0] == 0x80
        for length in range(1, 60)
    )


def test_a_torchscript_archive_reads_without_its_code(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["visual.ln.num_batches"]  # parameters are floating
    found = read_checkpoint(containers.write_torchscript(tmp_path / "ViT.pt", state))
    assert found.container == "TorchScript"
    assert found.tensors.pop("input_resolution") == 32
    assert_same(found.tensors, state)


def test_a_sharded_folder_reads_with_its_config(state: dict[str, Tensor], tmp_path: Path) -> None:
    folder = containers.write_sharded(tmp_path / "model", state, {"hidden_act": "quick_gelu"})
    found = read_checkpoint(folder)
    assert_same(found.tensors, state)
    assert found.config == {"hidden_act": "quick_gelu"}


def test_what_was_taken_and_what_was_left_is_said(state: dict[str, Tensor], tmp_path: Path) -> None:
    found = read_checkpoint(containers.write_training(tmp_path / "epoch_3.pt", state))
    assert (found.place, found.prefix, found.left) == ("state_dict", "module.", ("epoch", "name", "optimizer"))
    found = read_checkpoint(containers.write_mmengine(tmp_path / "best.pth", state))
    assert (found.place, found.prefix, found.left) == ("state_dict", "", ("meta", "message_hub"))


def test_only_the_state_dict_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "optimizer": {"state": torch.ones(1000)}}, path)
    archive = zipfile.ZipFile(path)
    largest = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    place = data.index(archive.read(largest))
    data[place] ^= 1  # the optimizer's state is damaged, and nobody looks
    path.write_bytes(data)
    assert torch.equal(read_tensors(path)["a"], torch.ones(2))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.999])
def test_a_truncated_file_is_refused(kind: str, part: float, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / "file", state)
    path.write_bytes(path.read_bytes()[: max(int(part * path.stat().st_size), 9)])
    with pytest.raises(DataError, match="cut off"):
        read_tensors(path)


def test_a_flipped_byte_of_a_tensor_is_seen(tmp_path: Path) -> None:
    path = containers.write_torch(tmp_path / "file.pt", {"a": torch.full((64,), 1.5)})
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<f", 1.5) * 64) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n0000", "begins with"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
        (struct.pack("<Q", 1 << 40) + b"{}", "damaged or cut off"),
        (struct.pack("<Q", 2) + b"{}", "no tensors"),
    ],
)
def test_what_is_no_checkpoint_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_tensors(tmp_path / "file")


def test_missing_files_and_other_values_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        read_tensors(tmp_path / "none.pt")
    with pytest.raises(RequestError, match="folder without a checkpoint"):
        read_tensors(tmp_path)
    for value, message in (({"epoch": 1}, "no state dict"), ([torch.ones(1)], "holds a list"), ({}, "no state dict")):
        torch.save(value, tmp_path / "file.pt")
        with pytest.raises(DataError, match=message):
            read_tensors(tmp_path / "file.pt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(DataError, match="not one that torch wrote"):
        read_tensors(tmp_path / "a.zip")


@pytest.mark.parametrize("names", [["../secret.safetensors"], ["none.safetensors"], ["/etc/passwd"]])
def test_an_index_names_only_files_beside_it(names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    containers.write_safetensors(tmp_path / "secret.safetensors", {"a": torch.ones(1)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0]}}))
    with pytest.raises(DataError, match="does not lie beside it"):
        read_tensors(folder)


# Hostile files: each payload would leave a file behind.


class Payload:
    """Pickles as a call of anything."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def payloads(trace: Path) -> dict[str, object]:
    code = f"open({str(trace)!r}, 'w')"
    return {
        "os.system": Payload(os.system, f"touch {trace}"),
        "eval": Payload(eval, code),
        "exec": Payload(exec, code),
        "open": Payload(open, str(trace), "w"),
        "import": Payload(__import__, "this"),
        "getattr": Payload(getattr, torch.Size, "__init__"),
        "torch.load": Payload(torch.load, str(trace)),
        "torch.hub": Payload(torch.hub.load_state_dict_from_url, "http://localhost:9/"),
        "bytearray": Payload(bytearray, 1 << 50),
        "namedtuple": Payload(collections.namedtuple, "A", "b"),
        "builtins": Payload(builtins.compile, code, "", "exec"),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", payloads(Path()))
def test_a_payload_is_refused_and_leaves_no_trace(name: str, legacy: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    value = {"state_dict": {"a": torch.ones(1)}, "extra": payloads(trace)[name]}
    torch.save(value, tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match="refused") as refusal:
        read_tensors(tmp_path / "file.pt")
    assert str(tmp_path / "file.pt") in str(refusal.value)
    assert not trace.exists()


def zip_of(pickled: bytes, path: Path, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('_')}", data)
    return path


def tensor_pickle(numel: int, shape: str, stride: str) -> bytes:
    """A pickle of {'a': tensor} with declared sizes of choice, in the text opcodes."""
    storage = f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{numel}\ntQ"
    call = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n{shape}{stride}I00\n}}tR"
    return b"\x80\x02" + f"}}Va\n{call}s.".encode()


def test_the_pickle_made_by_hand_is_read(tmp_path: Path) -> None:
    path = zip_of(tensor_pickle(2, "(I2\nt", "(I1\nt"), tmp_path / "a.pt", _0=struct.pack("<2f", 1, 2))
    assert torch.equal(read_tensors(path)["a"], torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("numel", "shape", "stride", "message"),
    [
        (1 << 40, "(I1099511627776\nt", "(I1\nt", "are declared"),
        (2, "(I1099511627776\nt", "(I0\nt", "does not fit its storage"),
        (2, "(I3\nt", "(I1\nt", "does not fit its storage"),
        (2, "(I2\nt", "(I5\nt", "does not fit its storage"),
        (2, "(I-2\nt", "(I1\nt", "not whole numbers"),
        (2, "(I2\nt", "(I-1\nt", "not whole numbers"),
        (2, "(I1\nI2\nt", "(I1\nt", "is no tensor"),
        (2, "(Vtwo\nt", "(I1\nt", "not whole numbers"),
        (2, "(" + "I1\n" * 65 + "t", "(" + "I1\n" * 65 + "t", "no list of numbers"),
        (-2, "(I2\nt", "(I1\nt", "not a storage"),
    ],
)
def test_declared_sizes_are_held_against_the_bytes(
    numel: int, shape: str, stride: str, message: str, tmp_path: Path
) -> None:
    path = zip_of(tensor_pickle(numel, shape, stride), tmp_path / "a.pt", _0=struct.pack("<2f", 1, 2))
    with pytest.raises(DataError, match=message):
        read_tensors(path)


def test_modules_that_hold_each_other_end(tmp_path: Path) -> None:
    """A TorchScript module that is its own submodule; one without attributes; and one whose state is none."""
    module = b"c__torch__.a\nA\n)\x81"
    for pickled, message in (
        (b"\x80\x02" + module + b"q\x00}Vself\nh\x00sb.", "without end"),
        (b"\x80\x02" + module + b".", "no state dict"),
        (b"\x80\x02" + module + b"I1\nb.", "damaged"),
    ):
        with pytest.raises(DataError, match=message):
            read_tensors(zip_of(pickled, tmp_path / "a.pt"))


def test_copying_a_list_again_and_again_costs_nothing(tmp_path: Path) -> None:
    """A list of 100,000 pairs made into 2,000 dictionaries would be 20 GB, from a file of a megabyte."""
    pairs = b"](" + b"K\x00K\x00\x86" * 100_000 + b"eq\x00"
    pickled = b"\x80\x02" + pairs + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 2000 + b"."
    with pytest.raises(DataError, match="no state dict"):
        read_tensors(zip_of(pickled, tmp_path / "a.pt"))


def test_compressed_and_overlapping_members_are_refused(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(1 << 20, "(I1048576\nt", "(I1\nt"))
        archive.writestr("archive/data/0", bytes(4 << 20))
    (tmp_path / "bomb.pt").write_bytes(bomb.getvalue())
    with pytest.raises(DataError, match="compressed"):
        read_tensors(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}r\xff\xff\xff\xffJ.",  # LONG_BINPUT: a memo of four thousand million entries
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",  # BINBYTES8 of an exabyte
        b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"1.",  # LONG4 of a gigabyte
        b"\x80\x02(((((((.",
        b"\x80\x02R.",
        b"\x80\x02}Va\nI1\n",
    ],
)
def test_a_malformed_pickle_costs_nothing(pickled: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"damaged|refused"):
        read_tensors(zip_of(pickled, tmp_path / "a.pt"))


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    home = tmp_path_factory.mktemp("whole")
    state = {"a.b": torch.arange(12.0).reshape(3, 4), "c": torch.tensor(1.0), "d": torch.arange(5).half()}
    return [write(home / "file", state).read_bytes() for write in (*WRITERS.values(), containers.write_torchscript)]


@settings(max_examples=400, deadline=None)
@given(kind=st.integers(0, len(WRITERS)), place=st.floats(0, 1), byte=st.binary(max_size=3), cut=st.integers(0, 9))
def test_any_damage_is_a_data_error_or_harmless(
    whole_files: list[bytes], kind: int, place: float, byte: bytes, cut: int
) -> None:
    whole = whole_files[kind]
    start = int(place * len(whole))
    with tempfile.NamedTemporaryFile() as file:
        file.write(whole[:start] + byte + whole[start + cut :])
        file.flush()
        with contextlib.suppress(DataError):
            read_tensors(file.name)


def test_no_attribute_can_be_set_on_what_is_admitted(tmp_path: Path) -> None:
    """BUILD sets attributes of any object: not on the functions that stand for torch's, nor `items` on a dictionary."""
    build = b"}Vitems\nI1\nsb"
    for named in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"c__builtin__\ngetattr\n", b"ctorch\nSize\n"):
        with pytest.raises(DataError):
            read_tensors(zip_of(b"\x80\x02" + named + build + b".", tmp_path / "a.pt"))
    shadowed = b"\x80\x02ccollections\nOrderedDict\n)R" + build + b"."
    with pytest.raises(DataError, match="no state dict"):
        read_tensors(zip_of(shadowed, tmp_path / "a.pt"))
