"""Tars whose headers lie: each has a good sample before and one after the lie, and both come through, with the liar named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from stillreel.configs.stream import CatalogSettings
from stillreel.shards.commands import catalog
from stillreel.shards.format.foreign import Damage, read_members
from stillreel.shards.stream.stream import open_blend
from tests.making import animate, check, jpeg, rows_of
from tests.streaming import keys_of_epoch

BLOCK = 512


def header(name: bytes, size: int, kind: bytes = b"0", field: bytes = b"") -> bytes:
    """A header as tar writes it; `field` stands where the size does."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = field or b"%011o\0" % size
    block[136:148], block[156:157], block[257:265] = b"00000000000\0", kind, b"ustar\00000"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes, **how: bytes) -> bytes:
    return header(name, len(data), **how) + padded(data)


def sample(key: str, number: int) -> bytes:
    return member(f"{key}.jpg".encode(), jpeg(number)) + member(f"{key}.txt".encode(), b"a dog")


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    return member(b"././@PaxHeader", b"".join(records), kind=kind)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


N = member(b"n.jpg", jpeg(7)) + member(b"n.txt", b"a cat")
# What stands between the good samples, the key that is rejected for it (None: nothing is), and the reason.
LIES: dict[str, tuple[bytes, str | None, str]] = {
    "a long name of 2^40 bytes": (header(b"x", 0, b"L", b"\x80" + (1 << 40).to_bytes(11, "big")) + N, "n", "corrupt"),
    "pax records of 2^40 bytes": (header(b"x", 0, b"x", b"\x80" + (1 << 40).to_bytes(11, "big")) + N, "n", "corrupt"),
    "a long name of 5,000 bytes": (member(b"x", b"n" * 5000, kind=b"L") + N, "n", "corrupt"),
    "a pax record of 21 digits": (pax(b"999999999999999999999 a=b\n") + N, "n", "corrupt"),
    "a pax record without a number": (pax(b"a=b\n") + N, "n", "corrupt"),
    "a pax record beyond its header": (pax(b"99 path=n.jpg\n") + N, "n", "corrupt"),
    "a pax size that is no number": (pax(record(b"size", b"-5")) + N, "n", "corrupt"),
    "a pax size of 2^60": (pax(record(b"size", b"1152921504606846976")) + N, "n", "truncated"),
    "a pax sparse map": (
        pax(record(b"GNU.sparse.map", b"0,x,1"), record(b"GNU.sparse.size", b"9")) + N,
        "n",
        "corrupt",
    ),
    "an old sparse file": (member(b"n.jpg", jpeg(7), kind=b"S") + member(b"n.txt", b"a cat"), "n", "corrupt"),
    "a size of 2^60": (
        header(b"n.jpg", 0, b"0", b"\x80" + (1 << 60).to_bytes(11, "big")) + N[BLOCK:],
        "n",
        "truncated",
    ),
    "a size of 2^87": (
        header(b"n.jpg", 0, b"0", b"\x80" + (1 << 87).to_bytes(11, "big")) + N[BLOCK:],
        "n",
        "truncated",
    ),
    "a negative size": (header(b"n.jpg", 0, b"0", b"\xff" * 12) + N[BLOCK:], None, ""),
    "a size that is no number": (header(b"n.jpg", 0, b"0", b"0o_7+3 -   \0") + N[BLOCK:], None, ""),
    "a wrong checksum": (N[:148] + b"000000\0 " + N[156:], None, ""),
    "a hole": (bytes(2048), None, ""),
    "JSON nested deep": (
        member(b"n.jpg", jpeg(7)) + member(b"n.json", b"[" * 100_000 + b"]" * 100_000),
        "n",
        "bad_caption",
    ),
    "a chain of a thousand pax headers": (pax(record(b"comment", b"x")) * 1000, None, ""),
}


@pytest.mark.parametrize("name", LIES)
def test_good_samples_are_written_and_the_liar_is_named(name: str, tmp_path: Path) -> None:
    lie, key, reason = LIES[name]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "0.tar").write_bytes(sample("good", 1) + lie + sample("zgood", 2) + bytes(10240))
    assert animate(tmp_path / "src", tmp_path / "out", max_rejects=1, frames=2, size=32) == 0
    assert check(tmp_path / "out").problems == []
    found = {row["source_key"]: (row["status"], row["reason"]) for row in rows_of(tmp_path / "out")}
    expected = {"good": ("written", None), "zgood": ("written", None)}
    assert found == expected | ({key: ("rejected", reason)} if key else {})


@pytest.mark.parametrize("name", LIES)
def test_catalog_lists_what_is_whole_and_the_stream_reads_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lie, _, _ = LIES[name]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "0.tar").write_bytes(
        sample("first", 3) + sample("good", 1) + lie + sample("y", 4) + sample("zgood", 2) + bytes(10240)
    )
    code = catalog.run(str(tmp_path / "src"), str(tmp_path / "out"), CatalogSettings(progress="off"))
    said = capsys.readouterr().out
    is_sound = name in ("JSON nested deep", "a chain of a thousand pax headers")
    assert (code, "PROBLEM 0.tar: " in said) == ((0, False) if is_sound else (1, True))
    assert {"first", "zgood"} <= keys_of_epoch(open_blend(str(tmp_path / "out")))


def test_names_that_are_not_utf8_are_spelled_out(tmp_path: Path) -> None:
    blob = member(b"a\xffb.jpg", jpeg(1)) + member(b"a\xffb.txt", b"x") + sample("good", 2) + bytes(10240)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "0.tar").write_bytes(blob)
    assert animate(tmp_path / "src", tmp_path / "out", frames=2, size=32) == 0
    assert [row["source_key"] for row in rows_of(tmp_path / "out")] == ["a\\xffb", "good"]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(kind: int) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind, pax_headers={"comment": "all"}) as tar:
        for name in ("a.jpg", "deep/" * 20 + "b.jpg", "d/" * 45 + "x" * 60 + ".jpg", "folder"):
            info = tarfile.TarInfo(name)
            info.size = 0 if name == "folder" else len(name)
            info.type = tarfile.DIRTYPE if name == "folder" else tarfile.REGTYPE
            info.mtime = 1.5 if kind == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(name.encode()))
    blob = sink.getvalue()
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        expected = [(one.name, one.offset_data, one.size) for one in tar if one.isreg()]
    found = list(read_members(io.BytesIO(blob), len(blob)))
    members = [one for one in found if not isinstance(one, Damage)]
    assert len(members) == len(found)
    assert [(one.name, one.start, one.size) for one in members if one.name] == expected


def test_text_of_the_json_is_no_more_than_a_member(tmp_path: Path) -> None:
    """A JSON that cannot be parsed spoils no text beside it."""
    blob = member(b"a.jpg", jpeg(1)) + member(b"a.json", b"[" * 100_000) + member(b"a.txt", b"a dog") + bytes(10240)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "0.tar").write_bytes(blob)
    assert animate(tmp_path / "src", tmp_path / "out", frames=2, size=32) == 0
    assert [(row["source_key"], row["captions"]) for row in rows_of(tmp_path / "out")] == [("a", ["a dog"])]


def test_a_tar_of_nothing_but_lies_is_read_once() -> None:
    """Twenty thousand members that each claim 2^60 bytes: each is a damage, and the search after each goes one header far."""
    blob = header(b"n.jpg", 0, b"0", b"\x80" + (1 << 60).to_bytes(11, "big")) * 20_000
    assert sum(isinstance(one, Damage) for one in read_members(io.BytesIO(blob), len(blob))) == 20_000
