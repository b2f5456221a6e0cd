"""Wrong, cut off and mixed-up annotation files: which file, which line or record, what was expected."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.finetune.benchmarks.files import AnnotationFile, parse
from stillreel.finetune.benchmarks.pickles import read_plain
from stillreel.finetune.benchmarks.records import ID_LIST, ID_TABLE, STAN, UMT, read_table
from tests.finetune.benchmarks.making import lines, read, write
from tests.finetune.benchmarks.test_dialects import TUBE, msrvtt_json, msvd

TEST = "MSRVTT_JSFUSION_test.csv"
HEAD = "key,vid_key,video_id,sentence"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (TEST, b"", r"test\.csv is empty"),
        (TEST, b"\xff\xfeh\x00i\x00", r"test\.csv: UTF-16; expected UTF-8"),
        (TEST, HEAD.encode() + b"\nret0,msr1,video1,caf\xe9\n", r"line 2: byte 0xe9 is not UTF-8"),
        (TEST, b"video_id,sentence\nvideo1,a\0b\n", r"line 2: a zero byte"),
        (
            TEST,
            b"key,vid_key,sentence\nret0,msr1,a\n",
            r"expected csv with a column video_id.*Found text whose line 1 is",
        ),
        (TEST, HEAD.encode() + b"\nret0,msr1,video1,a\nret1,msr2\n", r"line 3: expected 4 fields .* found 2"),
        (TEST, HEAD.encode() + b'\nret0,msr1,video1,"a\n', r"line 2: unexpected end of data"),
        (
            TEST,
            HEAD.encode() + b"\nret0,msr1,video1,a\nret1,msr1,video1,b\n",
            r"line 3: video 'video1' stands there again",
        ),
        (TEST, HEAD.encode() + b"\nret0,msr1,video1, \n", r"line 2: the caption is blank"),
        ("test_JSFUSION.json", b'{"video1.mp4": ["a"], "video2.mp4": [', r"line 1, column 38: not JSON: .* cut off"),
        ("test_JSFUSION.json", b'{"video1.mp4": ["a"]\n, "x": nope}', r"line 2, column 8: not JSON"),
        (
            "test_JSFUSION.json",
            b'{"video1.mp4": ["a", 3]}',
            r"video 'video1.mp4': expected a caption as text, found a number",
        ),
        ("test_JSFUSION.json", b'{"v.mp4": ["a"], "v.mp4": ["b"]}', r"the key 'v.mp4' stands twice in one object"),
        ("test_JSFUSION.json", b"[" * 100_000, r"JSON nested deeper"),
        ("test_JSFUSION.json", b'[{"video": "a.mp4", "caption": "x"}, {"video": "b.mp4"}]', r"record 2: no 'caption'"),
        (
            "test_JSFUSION.json",
            b'[{"video": "a.mp4", "caption": "x"}, 7]',
            r"record 2: expected an object with 'video'",
        ),
        ("test_JSFUSION.json", b'{"a.mp4": "\\ud800"}', r"half of a surrogate pair"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        read("msrvtt", tmp_path)
    assert str(tmp_path / name) in str(error.value)
    assert "msrvtt's test" in str(error.value)


def test_a_cut_zip_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "train_val_annotation.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_val_videodatainfo.json", "{}")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"train_val_annotation\.zip: damaged or cut off"):
        read("msrvtt", tmp_path, variant="full")


def test_a_test_list_given_as_the_training_list_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_data.json", msrvtt_json("video1", "video2"))
    write(tmp_path / TEST, lines(HEAD, "ret0,msr1,video1,a", "ret1,msr2,video2,b"))
    with pytest.raises(DataError, match=r"2 videos are both in the train split .* and in the test split"):
        read("msrvtt", tmp_path, needs=("train", "test"), files={"train": TEST})


def test_another_benchmark_s_file_is_called_by_its_name(tmp_path: Path) -> None:
    record = {"video": "1@N00_2_ab.mov", "description": "a dog", "times": [[0, 0]]}
    write(tmp_path / "val_1.json", [record])
    with pytest.raises(
        DataError, match=r"expected .*duration.* Found a list of objects with 'description'.*DiDeMo's json"
    ):
        read("activitynet", tmp_path)
    write(tmp_path / "test_data.json", {"v_x": {"duration": 1, "sentences": ["a"], "timestamps": [[0, 1]]}})
    with pytest.raises(DataError, match=r"test_data\.json: expected .*description.*that is ActivityNet's json"):
        read("didemo", tmp_path)


def test_a_caption_of_a_video_that_no_split_has_is_named(tmp_path: Path) -> None:
    names = msvd(tmp_path)
    write(tmp_path / "captions_msvd.json", {name: ["a"] for name in [*names, f"{TUBE[7]}_1_2"]})
    with pytest.raises(DataError, match=rf"captions of '{TUBE[7]}_1_2', which no split of MSVD has"):
        read("msvd", tmp_path)
    value = msrvtt_json("video1")
    value["sentences"].append({"video_id": "video5", "caption": "who?"})
    write(tmp_path / "MSRVTT_data.json", value)
    write(tmp_path / TEST, lines(HEAD, "ret0,msr1,video1,a"))
    with pytest.raises(DataError, match=r"sentences, record 3: a caption of 'video5', which is not among its 1 videos"):
        read("msrvtt", tmp_path)


def test_a_listed_video_without_captions_is_named(tmp_path: Path) -> None:
    names = msvd(tmp_path)
    write(tmp_path / "captions_msvd.json", {name: ["a"] for name in names[:2]})
    with pytest.raises(DataError, match=rf"test_list\.txt, line 1: .* has no captions of video '{names[2]}'"):
        read("msvd", tmp_path)


def test_a_cut_list_is_refused_by_its_count(tmp_path: Path) -> None:
    write(tmp_path / TEST, lines(HEAD, *(f"ret{n},msr{n},video{n},a {n}" for n in range(500))))
    with pytest.raises(RequestError, match=r"500 videos; the test split of MSR-VTT 1k-A .* has 1,000 .* cut off"):
        read("msrvtt", tmp_path, allow_missing=False)
    benchmark, _ = read("msrvtt", tmp_path)
    assert "published with 1,000 videos" in benchmark.describe()


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        (
            "lsmdc",
            "LSMDC16_challenge_1000_publictect.csv",
            "a\tb\tc\td\te\tf\n",
            r"line 1: start_aligned is 'b'; expected hours",
        ),
        (
            "lsmdc",
            "LSMDC16_challenge_1000_publictect.csv",
            "a\t00.00.01.000\t00.00.02.000\t00.00.01.000\t00.00.02.000\thi\nb\thi\n",
            r"line 2: expected 6 fields separated by tabs .* found 2",
        ),
        (
            "kinetics400",
            "val.csv",
            "a.mp4,3\nb.mp4,walking\n",
            r"line 2: expected `path class` with the class as a number",
        ),
        ("kinetics400", "val.csv", "label,youtube_id,time_start,split\nx,y,1,val\n", r"line 1: no column time_end"),
        ("ssv2", "val.txt", "12 30 4\n13 30\n", r"line 2: expected `id frames class`"),
        ("hmdb51", "brush_hair_test_split1.txt", "a.avi 1\nb.avi 3\n", r"line 2: expected `name.avi` and 0, 1 or 2"),
        (
            "vatex",
            "vatex_data.json",
            '{"a": {"enCap": "x"}}',
            r"record 1 \(video 'a'\): 'enCap' is text, expected a list",
        ),
        (
            "activitynet",
            "val_1.json",
            '{"v_a": {"duration": 3, "sentences": ["x", "y"], "timestamps": [[0, 1]]}}',
            r"video 'v_a': 2 sentences and 1 timestamps",
        ),
        ("msvd", "youtube_mapping.txt", "a vid1\nb vid1\n", r"line 2: vid1 stands there again; first: line 1"),
        ("folder", "captions.csv", "video,caption,split\na.mp4,x,tset\n", r"line 2: the split 'tset'; expected train"),
        (
            "folder",
            "captions.csv",
            "video,caption,split\na.mp4,x,train\na.mp4,y,test\n",
            r"line 3: 'a.mp4' has another split",
        ),
    ],
)
def test_records_that_are_not_as_expected_are_named(
    tmp_path: Path, name: str, file: str, text: str, message: str
) -> None:
    write(tmp_path / file, text)
    with pytest.raises(DataError, match=message):
        read(name, tmp_path)


def test_a_class_that_nobody_knows_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "label_map.txt", lines("abseiling", "zumba"))
    write(
        tmp_path / "kinetics_400_val.csv",
        lines("label,youtube_id,time_start,time_end,split", f"zumbaa,{TUBE[0]},1,2,val"),
    )
    with pytest.raises(DataError, match=r"line 2: class 'zumbaa' is none of the 2 of label_map\.txt; is it 'zumba'"):
        read("kinetics400", tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": "1kc"}, r"variant=1kc: msrvtt has 1ka-9k, 1ka-7k, 1kb, full"),
        ({"files": {"test": "nowhere.csv"}}, r"files\.test=nowhere\.csv: no such file"),
        ({}, r"msrvtt: the 1,000 test videos of 1k-A.*none found.*Usual names: .*files\.test="),
    ],
)
def test_requests_that_cannot_be_met_say_what_to_do(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read("msrvtt", tmp_path, **values)
    with pytest.raises(RequestError, match=r"no benchmark 'msrvt'; did you mean 'msrvtt'\?"):
        read("msrvt", tmp_path)
    with pytest.raises(RequestError, match=r"expected a folder on this machine"):
        read("msrvtt", tmp_path / "nowhere")


def test_two_files_that_differ_leave_the_choice_to_the_user(tmp_path: Path) -> None:
    write(tmp_path / "a" / TEST, lines(HEAD, "ret0,msr1,video1,a"))
    write(tmp_path / "b" / TEST, lines(HEAD, "ret0,msr1,video1,b"))
    with pytest.raises(RequestError, match=rf"2 files may be its test .*\n  a/{TEST}.*\n  b/{TEST}.*\n.*files\.test="):
        read("msrvtt", tmp_path)
    benchmark, _ = read("msrvtt", tmp_path, files={"test": f"b/{TEST}"})
    assert benchmark.splits["test"].videos[0].captions == ("b",)
    write(tmp_path / "b" / TEST, lines(HEAD, "ret0,msr1,video1,a"))
    _, finder = read("msrvtt", tmp_path)
    assert finder.aside == [f"test: b/{TEST} says the same"]


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def malicious() -> dict[str, bytes]:
    """Pickles that run something, name something, or fill the memory."""
    words = b"\x80\x02]q\x00(X\x01\x00\x00\x00aq\x01" + b"h\x01" * 50 + b"e"
    nested = io.BytesIO(b"\x80\x02}X\x01\x00\x00\x00k(" + words[2:] + b"h\x00" * 5000 + b"ls.")
    return {
        "reduce": pickle.dumps({"a": _Runs()}),
        "reduce, protocol 0": pickle.dumps(_Runs(), 0),
        "global": b"cos\nsystem\n(S'touch pwned'\ntR.",
        "inst": b"(S'touch pwned'\nios\nsystem\n.",
        "stack global": pickle.dumps(os.system, 4),
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pabc\n.",
        "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
        "cut off": pickle.dumps({"a": ["b"]})[:-4],
        "no pickle": b"hello",
        "set": pickle.dumps({"a": {"b"}}),
        "repeated": nested.getvalue(),
    }


@pytest.mark.parametrize("kind", malicious())
def test_a_pickle_of_anything_but_plain_containers_is_refused(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    msvd(tmp_path)
    (tmp_path / "raw-captions.pkl").write_bytes(malicious()[kind])
    with pytest.raises(DataError, match=r"raw-captions\.pkl"):
        read("msvd", tmp_path)
    assert not (tmp_path / "pwned").exists()


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(plain_values, st.sampled_from([0, 1, 2, 3, 4, 5]))
def test_plain_containers_come_through_every_protocol(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert read_plain(data) == (value, sum(1 for _ in pickletools.genops(data)))


cut_and_continued = st.builds(lambda at, rest: pickle.dumps({"k": ["w"]})[:at] + rest, st.integers(0, 20), st.binary())


@settings(deadline=None)
@given(st.binary(max_size=60) | cut_and_continued)
def test_no_bytes_make_the_pickle_reader_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(DataError):
        read_plain(data)


@pytest.mark.long
@settings(deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
    st.sampled_from(["x.json", "x.jsonl", "x.csv", "x.tsv", "x.txt", "x.pkl", "x.parquet"]),
)
def test_no_bytes_make_a_reader_raise_anything_but_a_user_s_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        parse(AnnotationFile(path))
        read_table(AnnotationFile(path), [ID_TABLE, ID_LIST, STAN, UMT])
    except StillreelError as error:
        assert name in str(error)
