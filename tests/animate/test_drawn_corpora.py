"""Folders and tars that are drawn: whatever a plain listing finds is planned, or named, by animate and by catalog."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.animate.sources import open_source
from stillreel.configs.build import SourceSettings
from stillreel.shards.commands.catalog import scan_samples
from tests.making import encoded, jpeg, picture

KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}
STEMS = st.from_regex(r"[a-zA-Z0-9_ äß-]{1,12}", fullmatch=True).filter(lambda stem: stem.strip() == stem)
FILES = st.lists(
    st.tuples(
        st.sampled_from(["", "sub/", "deep/er/"]), STEMS, st.sampled_from(sorted(KINDS)), st.booleans(),
        st.sampled_from(["txt", "json", "both", "blank", "none"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda file: (file[0], file[1].casefold()),
)  # fmt: skip


@given(files=FILES)
@settings(max_examples=40, deadline=None)
def test_every_picture_with_a_text_beside_it_is_planned_and_every_other_is_counted(
    files: list[tuple[str, str, str, bool, str]],
) -> None:
    with TemporaryDirectory() as home:
        expected: dict[str, tuple[str, ...]] = {}
        lonely = 0
        for number, (folder, stem, kind, is_upper, beside) in enumerate(files):
            path = Path(home) / folder / f"{stem}.{kind.upper() if is_upper else kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(number), KINDS[kind]))
            words = f"picture {number}"
            if beside in ("txt", "both", "blank"):
                path.with_name(f"{stem}.txt").write_text("  \n" if beside == "blank" else words)
            if beside in ("json", "both"):
                path.with_name(f"{stem}.json").write_text(f'{{"caption": "{words}"}}')
            lonely += beside == "none"
            if beside != "none":
                expected[f"{folder}{path.name}"] = () if beside == "blank" else (words,)
        if not expected:
            return
        source = open_source(home, SourceSettings())
        listed = list(source.listing())
        assert {one.source_key: one.captions for one in listed} == expected
        assert all((one.problem is None) == bool(one.captions) for one in listed)
        assert sum(source.left_out.values()) == lonely


def drawn_tar(seed: int) -> bytes:
    """A tar of a few samples, with what makes tars hard: formats, links, folders, doubles, keys in pieces, joined archives."""
    dice = random.Random(seed)
    parts = []
    for part in range(dice.choice([1, 1, 1, 2, 3])):
        members: list[tuple[str, bytes, bytes, str]] = []
        for number in range(dice.randint(1, 4)):
            key = dice.choice(["{}", "d/{}", "long" * 20 + "/{}", "ü{}", "{} b"]).format(f"{part}-{number}")
            sample = [
                (f"{key}.jpg", tarfile.REGTYPE, jpeg(number), ""),
                (f"{key}.txt", tarfile.REGTYPE, key.encode(), ""),
            ]
            if dice.random() < 0.2:
                sample.append((f"{key}.txt", tarfile.REGTYPE, b"again", ""))
            if dice.random() < 0.2 and members:
                sample[0] = (f"{key}.jpg", tarfile.LNKTYPE, b"", members[0][0])
            members += sample
        if dice.random() < 0.3:
            members.append(("folder/", tarfile.DIRTYPE, b"", ""))
        if dice.random() < 0.3:
            dice.shuffle(members)
        members.sort(key=lambda one: one[1] == tarfile.LNKTYPE)  # a link stands after its file
        buffer = io.BytesIO()
        kind = dice.choice([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for name, sort, data, target in members:
                info = tarfile.TarInfo(name)
                info.type, info.size, info.linkname = sort, len(data), target
                tar.addfile(info, io.BytesIO(data))
        parts.append(buffer.getvalue())
    data = b"".join(parts)
    return gzip.compress(data) if dice.random() < 0.05 else data


def plain_listing(data: bytes) -> Counter[str]:
    """How many files of each key tarfile finds, links included."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:*", ignore_zeros=True) as tar:
        files = [one.name for one in tar if one.isreg() or one.islnk()]
    return Counter(name.rpartition("/")[0] + "/" + name.rpartition("/")[2].partition(".")[0] for name in files)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_tars_hold_what_a_plain_listing_finds_or_the_difference_is_said(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 50):
        data = drawn_tar(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "0.tar").write_bytes(data)
        keys = {key.removeprefix("/") for key in plain_listing(data)}
        source = open_source(str(folder), SourceSettings())
        listed = {one.source_key for one in source.listing()}
        scan = scan_samples("0.tar", io.BytesIO(data))
        said = "\n".join((*source.left_out, *scan.problems))
        if data.startswith(b"\x1f\x8b"):
            assert not listed and not scan.entries and said.count("gzip") == 2
            continue
        assert listed == keys, (seed, source.left_out)
        assert not source.left_out, seed
        for key in keys - {entry.key for entry in scan.entries}:
            assert f"{key}: left out" in said, (seed, key, scan.problems)
