"""Videos are found by the names in use, counted, and a split that lacks some is refused unless that is allowed."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.configs import RequestError
from stillreel.finetune.benchmarks import Opened
from stillreel.finetune.benchmarks.benchmark import Video
from stillreel.finetune.benchmarks.files import Inventory
from stillreel.finetune.benchmarks.videos import VideoIndex
from tests.finetune.benchmarks.making import ids, lines, opened, touch, write
from tests.finetune.benchmarks.test_dialects import TUBE, msrvtt_json
from tests.test_rooms import imported_by

FULL = {"variant": "full"}


def found(folder: Path, video: Video) -> str:
    index = VideoIndex(Inventory(str(folder)))
    return index.exact(video) or index.find(video, ())


@pytest.mark.parametrize(
    ("file", "video"),
    [
        ("video7010.mp4", Video("video7010")),
        ("TestVideo/deep/video7010.webm", Video("video7010")),
        ("YouTubeClips/-4wsuPCjDBc_5_15.avi", Video("-4wsuPCjDBc_5_15")),
        ("vid7.avi", Video("-4wsuPCjDBc_5_15", names=("-4wsuPCjDBc_5_15", "vid7"))),
        (f"{TUBE[0]}_000010_000020.mp4", Video(f"{TUBE[0]}_000010_000020")),
        (f"val/air drumming/{TUBE[0]}_000007_000017.mp4", Video(TUBE[0], names=(f"{TUBE[0]}_000007_000017", TUBE[0]))),
        (f"val/air_drumming/{TUBE[0]}.mkv", Video(TUBE[0], names=(f"{TUBE[0]}_000007_000017", TUBE[0]))),
        (f"{TUBE[0]}_trimmed.mp4", Video(TUBE[0])),
        ("20bn/78687.webm", Video("78687")),
        ("0001_A_Film/0001_A_Film_00.00.51.926-00.00.54.129.avi", Video("0001_A_Film_00.00.51.926-00.00.54.129")),
        ("1@N00_2_ab.mp4", Video("1@N00_2_ab", names=("1@N00_2_ab.mov", "1@N00_2_ab", "1@N00_2_ab."))),
        ("1@N00_2_ab", Video("1@N00_2_ab", names=("1@N00_2_ab.", "1@N00_2_ab", "1@N00_2_ab."))),
        ("1@N00_2_ab.", Video("1@N00_2_ab", names=("1@N00_2_ab.", "1@N00_2_ab", "1@N00_2_ab."))),
        ("1@N00_2_ab..mp4", Video("1@N00_2_ab", names=("1@N00_2_ab.", "1@N00_2_ab", "1@N00_2_ab."))),
        ("MOV/CLIP.MOV", Video("CLIP")),
    ],
)
def test_a_video_is_found_by_each_name_in_use(tmp_path: Path, file: str, video: Video) -> None:
    touch(tmp_path, [file, "other.mp4", f"{video.id}.json", f"{video.id}.jpg", f".{video.id}.mp4"])
    assert found(tmp_path, video) == file


def test_folders_that_are_links_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "disk", ["video1.mp4"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "videos").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "data")
    assert Inventory(str(tmp_path / "data")).names == ["videos/video1.mp4"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        if os.access(closed, os.R_OK):
            pytest.skip("this user may list everything")
        with pytest.raises(RequestError, match="closed: cannot be listed"):
            Inventory(str(tmp_path))
    finally:
        closed.chmod(0o700)


def test_different_files_of_one_name_leave_the_choice_to_the_user(tmp_path: Path) -> None:
    touch(tmp_path, ["raw/video1.mp4", "small/video1.mp4"])
    with pytest.raises(
        RequestError, match=r"'video1' has 2 different files .*raw/video1\.mp4, small/video1\.mp4.*videos="
    ):
        found(tmp_path, Video("video1"))
    assert found(tmp_path, Video("video1", path="elsewhere/small/video1.mp4")) == "small/video1.mp4"
    (tmp_path / "small" / "video1.mp4").write_bytes((tmp_path / "raw" / "video1.mp4").read_bytes())
    assert found(tmp_path, Video("video1")) == "raw/video1.mp4", "copies are as good as each other"


def folder_of(folder: Path, files: list[str], rows: list[str], **values: Any) -> Opened:
    write(folder / "captions.csv", lines("video,caption", *rows))
    touch(folder, files)
    return opened("folder", folder, **values)


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_are_the_same_taken_apart_or_not(tmp_path: Path, listed: str, stored: str) -> None:
    """A Mac takes them apart when it unzips."""
    name = "Été à Köln が"
    here, there = (unicodedata.normalize(form, name) for form in (listed, stored))
    done = folder_of(tmp_path, [f"videos/{there}.mp4", "videos/b.mp4"], [f"{here},a lake", "b,a bus"])
    assert done.located.paths[unicodedata.normalize("NFC", name)] == tmp_path / "videos" / f"{there}.mp4"
    assert not done.benchmark.differences


def test_a_video_listed_in_both_spellings_of_its_accents_is_one(tmp_path: Path) -> None:
    rows = [f"{unicodedata.normalize(form, 'é.mp4')},seen {form}" for form in ("NFC", "NFD")]
    done = folder_of(tmp_path, [unicodedata.normalize("NFD", "é.mp4")], rows, allow_missing=False)
    assert [video.captions for video in done.benchmark.splits["test"].videos] == [("seen NFC", "seen NFD")]


def test_capitals_differ_only_where_no_name_is_the_same(tmp_path: Path) -> None:
    done = folder_of(tmp_path, ["Dog.MP4", "dog.mp4", "BUS.Mp4"], ["dog.mp4,a", "Dog.mp4,b", "bus.mp4,c"])
    assert {name: path.name for name, path in done.located.paths.items()} == {
        "dog.mp4": "dog.mp4",
        "Dog.mp4": "Dog.MP4",
        "bus.mp4": "BUS.Mp4",
    }
    assert done.benchmark.differences == ("1 videos are found by names whose capitals differ: BUS.Mp4 for 'bus.mp4'",)
    assert "1 videos are found by names" in done.report()


def test_a_missing_video_takes_no_other_s_file_for_its_capitals(tmp_path: Path) -> None:
    done = folder_of(tmp_path, ["abcdefghiJK.mp4"], ["ABCdefghijk,gone", "abcdefghiJK,there"])
    assert done.located.missing["test"] == ("ABCdefghijk",)


def test_of_two_endings_side_by_side_one_is_taken_and_it_is_said_which(tmp_path: Path) -> None:
    done = folder_of(tmp_path, ["a.webm", "a.mp4", "deep/b.gif", "deep/b.avi"], ["a,a dog", "b,a bus"])
    assert [path.name for path in done.located.paths.values()] == ["a.mp4", "b.avi"]
    (said,) = done.benchmark.differences
    assert "2 videos have files of several endings side by side" in said
    assert said.endswith("is taken: a.mp4, not a.webm, deep/b.avi, not deep/b.gif")
    named = folder_of(tmp_path, [], ["a.webm,a dog", "b,a bus"])
    assert named.located.paths["a.webm"].name == "a.webm", "one that the table names is no choice"


def test_a_choice_that_is_refused_has_a_remedy_for_each_case(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"one of their folders with videos=; of files in one folder, rename or remove"
    ):
        folder_of(tmp_path, ["Ab.mp4", "aB.mp4"], ["ab,a dog"])


def test_files_of_other_endings_are_counted_and_named(tmp_path: Path) -> None:
    others = [*(f"{n}.heic" for n in range(7)), "x.JPG", "y.jpg", "z.JPG", "README"]
    done = folder_of(tmp_path, ["a.mp4", *others], ["a.mp4,a dog"])
    assert done.benchmark.differences == (
        "11 files of other endings: .heic 7, .jpg 3, none 1: no videos that are read here",
    )
    assert Inventory(str(tmp_path)).others() == "12 files of other endings: .heic 7, .jpg 3, none 1, .csv 1"


def full(folder: Path, *, train: int = 3, test: int = 4) -> list[str]:
    """MSR-VTT full, small; returns the ids of train, then test."""
    names = [f"video{n}" for n in range(train + test)]
    write(folder / "MSRVTT_data.json", msrvtt_json(*names))
    write(folder / "MSRVTT_train.full.csv", lines("video_id", *names[:train]))
    write(folder / "MSRVTT_test.full.csv", lines("video_id", *names[train:]))
    return names


def test_missing_videos_are_misses_in_the_test_and_dropped_in_training(tmp_path: Path) -> None:
    names = full(tmp_path)
    touch(tmp_path / "videos", [f"{name}.mp4" for name in names if name not in ("video1", "video5")])
    done = opened("msrvtt", tmp_path, needs=("train", "test"), **FULL)
    assert done.located.missing == {"train": ("video1",), "test": ("video5",)}
    assert ids(done.benchmark, "train") == ["video0", "video2"]
    assert ids(done.benchmark, "test") == ["video3", "video4", "video5", "video6"]
    assert "train: 1 of 3 videos are missing, and dropped" in done.benchmark.differences
    assert sorted(done.located.paths) == ["video0", "video2", "video3", "video4", "video6"]
    table = [line.split() for line in done.located.table.splitlines()]
    assert table == [
        ["split", "published", "listed", "captions", "found", "missing"],
        ["train", "6,513", "3", "6", "2", "1"],
        ["test", "2,990", "4", "8", "3", "1"],
    ]
    assert done.located.table in done.report()
    assert done.located.describe().endswith("; 1 videos missing, counted as misses")


def test_a_shrunk_split_is_refused_with_names_and_the_way_out(tmp_path: Path) -> None:
    write(tmp_path / "captions.csv", lines("video,caption", *(f"v{n}.mp4,said {n}" for n in range(9))))
    touch(tmp_path, [f"v{n}.mp4" for n in range(4)])
    with pytest.raises(RequestError) as error:
        opened("folder", tmp_path, allow_missing=False)
    message = str(error.value)
    assert f"test: 5 of 9 videos are not in {tmp_path}: v4.mp4, v5.mp4, v6.mp4, ..." in message
    assert "allow_missing=true" in message
    assert len(opened("folder", tmp_path).located.missing["test"]) == 5


def test_a_split_that_nobody_needs_may_lack_videos(tmp_path: Path) -> None:
    rows = ["a.mp4,one,train", "b.mp4,two,test"]
    write(tmp_path / "captions.csv", lines("video,caption,split", *rows))
    touch(tmp_path, ["b.mp4"])
    assert opened("folder", tmp_path, allow_missing=False).located.missing["train"] == ("a.mp4",)
    with pytest.raises(RequestError, match=r"train: 1 of 1 videos"):
        opened("folder", tmp_path, needs=("train", "test"), allow_missing=False)


def test_a_folder_without_any_of_the_videos_is_refused_even_if_missing_is_allowed(tmp_path: Path) -> None:
    full(tmp_path)
    with pytest.raises(RequestError, match=r"None of test is there: is it the right folder\?"):
        opened("msrvtt", tmp_path, **FULL)


def test_one_file_serves_one_video(tmp_path: Path) -> None:
    """a/x.mp4 is missing; b/x.mp4 is another video, and does not stand in for it."""
    write(tmp_path / "captions.csv", lines("video,caption", "a/x.mp4,one", "b/x.mp4,two"))
    touch(tmp_path, ["b/x.mp4"])
    assert opened("folder", tmp_path).located.missing["test"] == ("a/x.mp4",)


def test_videos_may_lie_elsewhere(tmp_path: Path) -> None:
    names = full(tmp_path / "notes")
    touch(tmp_path / "films", [f"{name}.webm" for name in names])
    done = opened("msrvtt", tmp_path / "notes", videos=str(tmp_path / "films"), **FULL)
    assert done.located.paths["video6"] == tmp_path / "films" / "video6.webm"


names_of_files = st.text("abc-_@.0", min_size=1, max_size=8).filter(lambda name: not name.startswith("."))


@settings(deadline=None)
@given(st.sets(names_of_files, min_size=1, max_size=8), st.sampled_from(["mp4", "webm", "avi", "mkv", "mov", "MP4"]))
def test_every_id_finds_its_own_file_and_no_other(names: set[str], ending: str) -> None:
    inventory = object.__new__(Inventory)
    inventory.root = Path("/nowhere")
    inventory.names = sorted(f"deep/{name}.{ending}" for name in names)
    index = VideoIndex(inventory)
    for name in names:
        assert index.find(Video(name), ()) == f"deep/{name}.{ending}"
    assert index.find(Video("absent"), ()) == ""


def test_importing_the_benchmarks_brings_in_no_torch() -> None:
    assert not imported_by("import stillreel.finetune.benchmarks") & {"torch", "av", "ray", "open_clip"}
