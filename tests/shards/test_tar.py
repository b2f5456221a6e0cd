from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.shards.format.tar import BLOCK, RECORD, TarDamage, digest_of_samples, members_of, walk
from stillreel.shards.format.writer import TarWriter

KEYS = st.integers(0, 999).map(lambda number: f"set_{number:09d}")
PAYLOADS = st.binary(max_size=2000)
SAMPLES = st.dictionaries(
    KEYS, st.dictionaries(st.sampled_from(["jpg", "json", "txt", "000.jpg", "mp4"]), PAYLOADS, min_size=1), max_size=8
)


def write(samples: dict[str, dict[str, bytes]]) -> tuple[bytes, list[tuple[int, int, bytes]], str]:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    spans = [
        writer.add([(f"{key}.{ending}", data) for ending, data in members.items()]) for key, members in samples.items()
    ]
    digest = writer.finish()
    assert writer.offset == len(sink.getvalue())
    return sink.getvalue(), spans, digest


@given(SAMPLES)
def test_everyone_reads_what_is_written(samples: dict[str, dict[str, bytes]]) -> None:
    data, _, _ = write(samples)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        modes = {(member.mode, member.mtime, member.uid, member.gid, member.uname) for member in tar}
    assert read == {
        f"{key}.{ending}": payload for key, members in samples.items() for ending, payload in members.items()
    }
    assert modes <= {(0o444, 0, 0, 0, "stillreel")}
    assert len(data) % RECORD == 0


@given(SAMPLES)
def test_spans_tile_the_tar_and_their_digests_make_its_digest(samples: dict[str, dict[str, bytes]]) -> None:
    data, spans, digest = write(samples)
    end = 0
    for (key, members), (offset, length, sha256) in zip(samples.items(), spans, strict=True):
        assert offset == end
        end = offset + length
        assert hashlib.sha256(data[offset:end]).digest() == sha256
        assert [member.name for member in members_of(data[offset:end])] == sorted(
            f"{key}.{ending}" for ending in members
        )
    assert not any(data[end:])
    assert digest == digest_of_samples(sha256 for _, _, sha256 in spans)


def test_bytes_are_pinned() -> None:
    """DATA BYTES: a change of this digest changes every shard that is ever built."""
    data, _, digest = write(
        {"set_000000000": {"jpg": b"\xff\xd8\xff\xd9", "txt": b"a dog", "json": b"{}"}, "set_000000001": {"txt": b""}}
    )
    assert hashlib.sha256(data).hexdigest() == "8ea4a9c6ce3d4e267dbc9d42839b87e9e4ad6f47d2f590c20a5f82c5f5bdb8da"
    assert digest == "a3e34ae8ae1e4eafcac725b5cfa2e815642c811ffedd2338593ea82c8ba9bd77"


def walked(data: bytes) -> list[str]:
    return [member.name for member in walk(io.BytesIO(data), len(data))]


SOME = {f"set_{number:09d}": {"jpg": bytes([number]) * 700, "json": b"{}", "txt": b"words"} for number in range(4)}


def test_walk_finds_every_member() -> None:
    data, _, _ = write(SOME)
    assert walked(data) == [f"{key}.{ending}" for key in SOME for ending in ("jpg", "json", "txt")]


@pytest.mark.parametrize("at", ["member boundary", "inside a header", "inside a payload", "before the end of archive"])
def test_walk_sees_a_cut_that_tarfile_forgives(at: str) -> None:
    data, spans, _ = write(SOME)
    header = members_of(data[: spans[0].length])[1].offset
    cut = {
        "member boundary": spans[2].offset + header,
        "inside a header": spans[2].offset + header + 100,
        "inside a payload": spans[2].offset + BLOCK + 300,
        "before the end of archive": spans[3].offset + spans[3].length,
    }[at]
    with pytest.raises(TarDamage, match=r"cut|no end of archive"):
        walked(data[:cut])


def test_walk_sees_a_hole() -> None:
    data, spans, _ = write(SOME)
    start = spans[1].offset
    holed = data[:start] + bytes(2 * BLOCK) + data[start + 2 * BLOCK :]
    with tarfile.open(fileobj=io.BytesIO(holed)) as tar:
        assert len(tar.getnames()) == 3, "the standard library takes it for the end"
    with pytest.raises(TarDamage, match="zeroed hole"):
        walked(holed)


@given(st.integers(0, 3), st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_walk_sees_a_flipped_header(sample: int, at: int, flip: int) -> None:
    data, spans, _ = write(SOME)
    offset = spans[sample].offset + at
    flipped = data[:offset] + bytes([data[offset] ^ flip]) + data[offset + 1 :]
    # The checksum field counts as blanks, and ends in bytes that nobody reads.
    if not 148 <= at < 156:
        with pytest.raises(TarDamage):
            walked(flipped)


def test_walk_of_nothing_is_damage() -> None:
    with pytest.raises(TarDamage, match="no end of archive"):
        walked(b"")
