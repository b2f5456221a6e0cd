"""What is a caption, and which file a table means: whatever separates, encodes and names it."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.configs import RequestError
from tests.animate.layouts import opened, stills
from tests.making import jpeg, write_tar

# --- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (["a dog", "a hound"], ("a dog", "a hound")),
        ("['a dog', 'a hound']", ("a dog", "a hound")),
        ("['a dog' 'a hound']", ("a dog", "a hound")),  # as numpy writes it
        ('["a dog\'s tail", "it\\"s"]', ("a dog's tail", 'it"s')),
        ("[a dog] on a mat", ("[a dog] on a mat",)),
        ("['a dog', 7]", ("['a dog', 7]",)),
        (float("nan"), ()),
        (None, ()),
        ("NaN", ()),
        ("None", ()),
        ("[]", ()),
        (7, ()),
        (7.5, ()),
        (True, ()),
        ({"raw": "a dog"}, ()),
        ([["a dog"], None, 3, "a hound"], ("a dog", "a hound")),
    ],
)
def test_only_text_is_a_caption(tmp_path: Path, value: Any, right: tuple[str, ...]) -> None:
    stills(tmp_path / "s", "a.jpg")
    (tmp_path / "s" / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "text": value}) + "\n")
    _, sound, wrong = opened(tmp_path / "s")
    assert sound == ({"a.jpg": right} if right else {})
    assert all(problem.startswith("no_caption") for problem in wrong.values())


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.float32(), pa.bool_(), pa.struct([("raw", pa.string())]), pa.list_(pa.int8())]
)
def test_a_column_of_no_text_is_refused_with_its_type(tmp_path: Path, kind: pa.DataType) -> None:
    stills(tmp_path / "s", "a.jpg")
    table = pa.table({"file_name": ["a.jpg"], "caption": pa.array([None], kind)})
    pq.write_table(table, tmp_path / "s" / "metadata.parquet")
    with pytest.raises(RequestError, match=r"column 'caption' is .*; expected text, or lists of text.*source.caption="):
        opened(tmp_path / "s")


def test_where_two_columns_could_be_meant_it_is_said_which_was_taken(tmp_path: Path, caplog: Any) -> None:
    stills(tmp_path / "s", "a.jpg")
    (tmp_path / "s" / "captions.csv").write_text("file,re_caption,caption\na.jpg,long,short\n")
    assert opened(tmp_path / "s")[1] == {"a.jpg": ("short",)}
    assert "captions are taken from 'caption'; source.caption= names another: re_caption" in caplog.text
    assert opened(tmp_path / "s", caption="re_caption")[1] == {"a.jpg": ("long",)}


def test_settings_of_columns_mean_fields_and_endings_in_tars_or_are_refused(tmp_path: Path) -> None:
    js = json.dumps({"caption": "short", "re_caption": ["long", "longer"]}).encode()
    members = [("a.jpg", jpeg(1)), ("a.input.jpg", jpeg(2)), ("a.json", js), ("a.cap", b"a file's"), ("b.jpg", jpeg(3))]
    write_tar(tmp_path / "t" / "0.tar", members)
    assert opened(tmp_path / "t", caption="re_caption")[1:] == (
        {"a": ("long", "longer")},
        {"b": "no_caption: it has no re_caption"},
    )
    assert opened(tmp_path / "t", caption="cap")[1] == {"a": ("a file's",)}
    source, sound, _ = opened(tmp_path / "t", picture="input.jpg")
    assert sound == {"a": ("short",)} and source.left_out == {"samples without a picture": 1}
    with pytest.raises(RequestError, match=r"source.key=id means nothing"):
        opened(tmp_path / "t", key="id")


def test_a_caption_that_is_too_long_is_not_said_to_be_none(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "0.tar", [("a.jpg", jpeg(1)), ("a.txt", b"x" * ((1 << 20) + 1))])
    stills(tmp_path / "s", "a.jpg")
    (tmp_path / "s" / "a.txt").write_bytes(b"x" * ((1 << 20) + 1))
    for folder, key in (("t", "a"), ("s", "a.jpg")):
        assert opened(tmp_path / folder)[2][key].startswith("caption_too_long: ")


# --- tables ------------------------------------------------------------------------------------------------------------

TABLE = 'file{0}caption\na.jpg{0}caf\xe9 at noon\nb.jpg{0}a "quoted" cat\n'


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", ["captions.csv", "captions.tsv"])
def test_separators_and_encodings_are_told_by_look(
    tmp_path: Path, separator: str, encoding: str, name: str, caplog: Any
) -> None:
    stills(tmp_path / "s", "a.jpg", "b.jpg")
    (tmp_path / "s" / name).write_bytes(TABLE.format(separator).replace("\n", "\r\n").encode(encoding))
    assert opened(tmp_path / "s")[1] == {"a.jpg": ("caf\xe9 at noon",), "b.jpg": ('a "quoted" cat',)}
    assert ("is not UTF-8" in caplog.text) == (not encoding.startswith("utf-8"))


def test_a_table_without_a_header_shows_its_pictures(tmp_path: Path) -> None:
    stills(tmp_path / "s", "a.jpg", "b.jpg")
    (tmp_path / "s" / "captions.tsv").write_text("a dog\ta.jpg\na cat, a mat\tb.jpg\n")
    assert opened(tmp_path / "s")[1] == {"a.jpg": ("a dog",), "b.jpg": ("a cat, a mat",)}
    (tmp_path / "s" / "captions.tsv").write_text("a dog\ta.jpg\t1\n")
    with pytest.raises(RequestError, match="has no header, and a row of it has 3 fields of which 1 name pictures"):
        opened(tmp_path / "s")


def test_names_are_found_as_they_are_meant(tmp_path: Path, caplog: Any) -> None:
    composed = unicodedata.normalize("NFC", "über.jpg")
    decomposed = unicodedata.normalize("NFD", composed)
    folder = stills(tmp_path / "s", decomposed, "Sub/Dog.JPG", "abs.jpg", "deep/er/x.jpg", "picture_0001.jpg")
    rows = {
        composed: "by form",
        "sub/dog.jpg": "by case",
        f"{folder}/abs.jpg": "absolute",
        "deep\\er\\x.jpg": "backslashes",
        "picture_001.jpg": "nearest",
        "/elsewhere/abs.jpg": "outside",
    }
    (folder / "captions.tsv").write_text("file\tcaption\n" + "".join(f"{a}\t{b}\n" for a, b in rows.items()))
    _, sound, wrong = opened(folder)
    assert {spoken[0]: key for key, spoken in sound.items()} == {
        "by form": decomposed,
        "by case": "Sub/Dog.JPG",
        "absolute": "abs.jpg",
        "backslashes": "deep/er/x.jpg",
    }
    assert wrong["picture_001.jpg"] == "missing: s/picture_001.jpg is not there; the nearest name is picture_0001.jpg"
    assert "no path within" in wrong["/elsewhere/abs.jpg"]
    assert "1 names of files are written in other case; the files are taken" in caplog.text


def test_json_of_other_kinds(tmp_path: Path) -> None:
    folder = stills(tmp_path / "s", "a.jpg", "val/b.jpg")
    kinds: dict[str, object] = {
        "object": {"a.jpg": "a dog", "val/b.jpg": ["a cat", "a mat"]},
        "list": [{"image": "a.jpg", "caption": "a dog"}, {"image": "val/b.jpg", "caption": ["a cat", "a mat"]}],
        "karpathy": {
            "images": [
                {"filename": "a.jpg", "sentences": [{"raw": "a dog"}]},
                {"filepath": "val", "filename": "b.jpg", "sentences": [{"raw": "a cat"}, {"raw": "a mat"}]},
            ]
        },
    }
    for value in kinds.values():
        (folder / "captions.json").write_text(json.dumps(value))
        assert opened(folder)[1] == {"a.jpg": ("a dog",), "val/b.jpg": ("a cat", "a mat")}
    llava = [
        {"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}
    ]
    (folder / "captions.json").write_text(json.dumps(llava))
    with pytest.raises(RequestError, match=r"holds conversations .* jq -c"):
        opened(folder)
    (folder / "captions.json").write_text("[" * 100_000)
    with pytest.raises(RequestError, match="is no JSON"):
        opened(folder)
