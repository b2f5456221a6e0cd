"""A table of a user's own, in whatever form it was saved: columns, captions in a cell, names of digits, rows that stand twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from stillreel.configs import DataError
from tests.finetune.benchmarks.making import ids, lines, opened, read, touch, write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", 'video,caption,split\na.mp4,"one, two",train\nb/c.mp4,three,test\nb/c.mp4,four,test\n'),
        (
            "captions.tsv",
            "file\tcaption\tsubset\na.mp4\tone, two\ttraining\nb/c.mp4\tthree\ttest\nb/c.mp4\tfour\ttest\n",
        ),
        (
            "metadata.jsonl",
            '{"video": "a.mp4", "caption": "one, two", "split": "train"}\n'
            '{"video": "b/c.mp4", "caption": ["three", "four"], "split": "test"}\n',
        ),
        (
            "labels.csv",
            'file,caption,split\na.mp4,"[""one, two""]",train\nb/c.mp4,"[""three"", ""four""]",test\n',
        ),
    ],
)
def test_a_table_of_one_s_own(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / name, text)
    benchmark, _ = read("folder", tmp_path, needs=("train", "test"))
    assert [(one.id, one.captions) for one in benchmark.splits["train"].videos] == [("a.mp4", ("one, two",))]
    assert [(one.id, one.captions) for one in benchmark.splits["test"].videos] == [("b/c.mp4", ("three", "four"))]
    assert benchmark.protocol.queries == "every"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", "video;caption\na.mp4;one, two\nb.mp4;three\n"),
        ("captions.csv", 'video;caption\na.mp4;"one, two"\nb.mp4;three\n'),
        ("captions.csv", "video\tcaption\na.mp4\tone, two\nb.mp4\tthree\n"),
        ("captions.csv", '"video"|"caption"\n"a.mp4"|"one, two"\n"b.mp4"|"three"\n'),
        ("captions.csv", '\ufeffvideo;"caption, in English, cleaned"\r\na.mp4;one, two\r\nb.mp4;three\r\n'),
        ("captions.tsv", 'video,caption\na.mp4,"one, two"\nb.mp4,three\n'),
        ("captions.tsv", "video\tcaption\na.mp4\tone, two\nb.mp4\tthree\n"),
    ],
    ids=["semicolons", "quoted", "tabs in csv", "bars", "of a spreadsheet", "commas in tsv", "tabs"],
)
def test_columns_are_separated_by_what_their_names_are(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / name, text)
    column = {"caption": "caption, in English, cleaned"} if "English" in text else {}
    benchmark, _ = read("folder", tmp_path, column=column)
    assert [(one.id, one.captions) for one in benchmark.splits["test"].videos] == [
        ("a.mp4", ("one, two",)),
        ("b.mp4", ("three",)),
    ]


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("['a dog', 'a hound']", ("a dog", "a hound")),
        ("['a dog' 'a hound']", ("a dog", "a hound")),
        ("['a dog'\n 'a hound']", ("a dog", "a hound")),
        ('["it\'s a dog", \'a "hound"\']', ("it's a dog", 'a "hound"')),
        ("('a dog', 'a hound')", ("a dog", "a hound")),
        ("['a dog',]", ("a dog",)),
        ("array(['a dog', 'a hound'], dtype=object)", ("a dog", "a hound")),
        ('["a dog", "a h\\u00f6und"]', ("a dog", "a höund")),
        ("[music] a dog", ("[music] a dog",)),
        ("[music]", ("[music]",)),
        ("(a dog's hound)", ("(a dog's hound)",)),
    ],
    ids=[
        "pandas",
        "NumPy",
        "NumPy, long",
        "quotes",
        "a tuple",
        "one",
        "an array",
        "JSON",
        "a caption",
        "a sound",
        "an aside",
    ],
)
def test_a_list_that_was_printed_into_a_cell_is_several_captions(
    tmp_path: Path, cell: str, captions: tuple[str, ...]
) -> None:
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption"), ("a.mp4", cell)])
    benchmark, _ = read("folder", tmp_path)
    assert benchmark.splits["test"].videos[0].captions == captions


@pytest.mark.parametrize(
    "cell",
    ["['a dog' ... 'a hound']", "['a dog', nan]", "['a dog', 'a 'hound']", "['a dog', 'a hou"],
)
def test_a_list_that_cannot_be_read_is_refused_and_never_one_caption(tmp_path: Path, cell: str) -> None:
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption"), ("a.mp4", cell)])
    with pytest.raises(DataError, match=r"line 2.*looks like a list of captions and cannot be read as one"):
        read("folder", tmp_path)


def test_ids_of_digits_alone_are_names_in_every_form(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"video_id": 7, "caption": "a dog"}, {"video_id": 12, "caption": "a bus"}]
    write(tmp_path / "json" / "captions.json", rows)
    write(tmp_path / "jsonl" / "captions.jsonl", lines(*map(json.dumps, rows)))
    write(tmp_path / "csv" / "captions.csv", lines("video_id,caption", "7,a dog", "12,a bus"))
    for name, kind in (("int", pa.int64()), ("float", pa.float64())):
        (tmp_path / name).mkdir()
        table = pa.table({"video_id": pa.array([7, 12], kind), "caption": ["a dog", "a bus"]})
        pq.write_table(table, tmp_path / name / "captions.parquet")
    for form in ("json", "jsonl", "csv", "int", "float"):
        touch(tmp_path / form / "videos", ["7.mp4", "12.mp4"])
        done = opened("folder", tmp_path / form, allow_missing=False)
        assert ids(done.benchmark, "test") == ["7", "12"], form
    write(tmp_path / "none" / "captions.json", [{"video_id": None, "caption": "a dog"}])
    with pytest.raises(DataError, match="record 1: expected the name of a video, found nothing"):
        read("folder", tmp_path / "none")


def test_rows_that_stand_twice_count_once_and_it_is_said(tmp_path: Path) -> None:
    rows = ["a.mp4,a dog", "a.mp4,a hound", "a.mp4,a dog", "b.mp4,a dog", "a.mp4,a dog"]
    write(tmp_path / "captions.csv", lines("video,caption", *rows))
    benchmark, _ = read("folder", tmp_path)
    assert [one.captions for one in benchmark.splits["test"].videos] == [("a dog", "a hound"), ("a dog",)]
    (said,) = benchmark.differences
    assert said == f"{tmp_path}/captions.csv: 2 rows stand there again and count once: line 4, line 6"
    write(tmp_path / "captions.csv", lines("video,label", "a.mp4,bow", "a.mp4,bow", "b.mp4,wave"))
    benchmark, _ = read("folder", tmp_path)
    assert "1 rows stand there again and count once: line 3" in benchmark.differences[0]


def test_an_id_that_a_list_has_twice_counts_once_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", lines("video_id,sentence", "video1,a", "video2,b", "video1,a"))
    benchmark, _ = read("msrvtt", tmp_path)
    assert ids(benchmark, "test") == ["video1", "video2"]
    assert "MSRVTT_JSFUSION_test.csv: 1 rows stand there again and count once: line 4" in caplog.text


def test_a_table_with_classes_is_for_recognition(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", "file,label,split\na.mp4,wave,train\nb.mp4,bow,test\n")
    benchmark, _ = read("folder", tmp_path, needs=("train", "test"))
    assert benchmark.protocol.task == "recognition"
    assert benchmark.labels == ("bow", "wave")
    assert benchmark.splits["test"].videos[0].label == 0


def test_a_parquet_table_without_splits_is_all_test(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"video": ["a.mp4", "b.mp4"], "text": [["x", "y"], ["z"]]}), tmp_path / "captions.parquet")
    benchmark, _ = read("folder", tmp_path)
    assert [one.captions for one in benchmark.splits["test"].videos] == [("x", "y"), ("z",)]
