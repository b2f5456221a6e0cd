"""Each dialect that users have is read: small files of our own in the form of the real ones."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stillreel.configs import DataError
from stillreel.finetune.benchmarks import Span
from stillreel.finetune.benchmarks.classes import plain
from stillreel.finetune.benchmarks.didemo import stem_of
from stillreel.finetune.benchmarks.lsmdc import seconds
from stillreel.finetune.benchmarks.records import id_of
from tests.finetune.benchmarks.making import ids, lines, read, write

TUBE = [f"Abcdefghij{letter}" for letter in "ABCDEFGH"]  # as long as YouTube's ids


def msrvtt_json(*names: str, videos: bool = True) -> dict[str, Any]:
    sentences = [{"video_id": name, "caption": f"{name} speaks {n}"} for n in range(2) for name in names]
    listed = {"videos": [{"video_id": name, "url": "https://example.org/" + name} for name in names]} if videos else {}
    return {**listed, "sentences": sentences}


def test_msrvtt_1ka_as_clip4clip_has_it(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_data.json", msrvtt_json("video0", "video1", "video2"))
    write(tmp_path / "MSRVTT_train.9k.csv", lines("video_id", "video0", "video1"))
    write(
        tmp_path / "MSRVTT_JSFUSION_test.csv",
        lines("key,vid_key,video_id,sentence", 'ret0,msr2,video2,"he, of course"'),
    )
    benchmark, _ = read("msrvtt", tmp_path, needs=("train", "test"))
    assert ids(benchmark, "train") == ["video0", "video1"]
    assert benchmark.splits["train"].videos[0].captions == ("video0 speaks 0", "video0 speaks 1")
    assert benchmark.splits["test"].videos[0].captions == ("he, of course",)
    assert benchmark.protocol.queries == "single"
    assert benchmark.selection is None


def test_msrvtt_1ka_tests_without_the_json(tmp_path: Path) -> None:
    """Pe's csv: video_id,sentence."""
    write(tmp_path / "somewhere" / "test_1ka.csv", lines("video_id,sentence", "video2,a man runs"))
    benchmark, _ = read("msrvtt", tmp_path)
    assert benchmark.splits["test"].videos[0].captions == ("a man runs",)
    assert benchmark.queries("test") == 1


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ({"video0.mp4": ["one", "two"]}, {"video9.mp4": ["nine"]}),
        (
            [{"video": "video0.mp4", "caption": "one"}, {"video": "video0.mp4", "caption": "two"}],
            [{"video": "video9.mp4", "caption": ["nine"]}],
        ),
        ([{"image": "x/video0.mp4", "caption": ["one", "two"]}], [{"image": "x/video9.mp4", "caption": "nine"}]),
    ],
)
def test_stan_s_and_umt_s_json_bring_their_own_captions(tmp_path: Path, train: Any, test: Any) -> None:
    write(tmp_path / "train_9k.json", train)
    write(tmp_path / "test_JSFUSION.json", test)
    benchmark, _ = read("msrvtt", tmp_path, needs=("train", "test"))
    assert [video.captions for video in benchmark.splits["train"].videos] == [("one", "two")]
    assert [(video.id, video.captions) for video in benchmark.splits["test"].videos] == [("video9", ("nine",))]


def test_msrvtt_full_by_the_release_s_own_split_in_zips(tmp_path: Path) -> None:
    def released(**splits: str) -> str:

        value = msrvtt_json(*splits)
        for video in value["videos"]:
            video["split"] = splits[video["video_id"]]
        return json.dumps({"info": {}, **value})

    with zipfile.ZipFile(tmp_path / "train_val_annotation.zip", "w") as archive:
        archive.writestr("train_val_videodatainfo.json", released(video0="train", video1="validate"))
        archive.writestr("readme.txt", "hello")
    with zipfile.ZipFile(tmp_path / "test_videodatainfo.json.zip", "w") as archive:
        archive.writestr("test_videodatainfo.json", released(video2="test"))
    benchmark, _ = read("msrvtt", tmp_path, variant="full", needs=("train", "validation", "test"))
    assert {name: ids(benchmark, name) for name in benchmark.splits} == {
        "train": ["video0"],
        "validation": ["video1"],
        "test": ["video2"],
    }
    assert benchmark.selection == "validation"
    assert benchmark.queries("test") == 2


def msvd(folder: Path, captions: Path | None = None) -> list[str]:
    names = [f"{tube}_{n}_{n + 5}" for n, tube in enumerate(TUBE[:3])]
    for name, one in zip(("train", "val", "test"), names, strict=True):
        write(folder / f"{name}_list.txt", lines(one))
    return names


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_msvd_with_its_pickle_of_words(tmp_path: Path, protocol: int) -> None:
    names = msvd(tmp_path)
    spoken = {name: [["a", "cat", "plays"], ["it", "plays"]] for name in names}
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(spoken, protocol))
    benchmark, _ = read("msvd", tmp_path)
    assert benchmark.splits["test"].videos[0].captions == ("a cat plays", "it plays")
    assert benchmark.protocol.queries == "every"
    assert benchmark.selection == "validation"


def test_msvd_s_mapping_names_the_files(tmp_path: Path) -> None:
    names = msvd(tmp_path)
    write(tmp_path / "captions_msvd.json", {name: ["a cat plays"] for name in names})
    write(tmp_path / "youtube_mapping.txt", lines(*(f"{name} vid{n}" for n, name in enumerate(names, 1))))
    benchmark, _ = read("msvd", tmp_path)
    assert benchmark.splits["test"].videos[0].names == (names[2], "vid3")


@pytest.mark.parametrize("form", ["clip2video", "release"])
def test_vatex_in_both_forms_and_both_splits(tmp_path: Path, form: str) -> None:
    names = [f"{tube}_000010_000020" for tube in TUBE[:5]]
    if form == "clip2video":
        write(tmp_path / "vatex_data.json", {name: {"enCap": [f"{name} one", "two"]} for name in names})
    else:
        records = [{"videoID": name, "enCap": [f"{name} one", "two"], "chCap": []} for name in names]
        write(tmp_path / "vatex_training_v1.0.json", records[:1])
        write(tmp_path / "vatex_validation_v1.0.json", records[1:])
    for name, listed in (("train", names[:1]), ("val", names[1:3]), ("test", names[3:]), ("test1k5_sec", names[2:4])):
        write(tmp_path / f"{name}_list.txt", lines(*listed))
    hgr, _ = read("vatex", tmp_path, needs=("train", "test"))
    assert [ids(hgr, name) for name in ("train", "validation", "test")] == [names[:1], names[1:3], names[3:]]
    assert hgr.splits["test"].videos[0].names == (names[3], f"{TUBE[3]}_10_20")
    other, _ = read("vatex", tmp_path, variant="clip2video")
    assert ids(other, "test") == names[2:4]
    assert ids(other, "validation") == names[1:2], "a video of the test is never selected on"
    assert any("1 of the 2 videos of val_list.txt are in CLIP2Video's test" in line for line in other.differences)


def test_lsmdc_s_six_fields_and_its_list_of_clips(tmp_path: Path) -> None:
    def row(film: int, said: str) -> str:
        clip = f"{film:04d}_A_Film_00.00.51.926-00.00.54.129"
        return "\t".join((clip, "00.00.51.926", "00.00.54.129", "00.00.51.000", "00.00.55.000", said))

    write(tmp_path / "LSMDC16_annos_training.csv", lines(row(1, 'SOMEONE says "no.'), row(2, "He sits.")))
    write(tmp_path / "LSMDC16_annos_val.csv", lines(row(3, "She runs.")))
    write(tmp_path / "LSMDC16_challenge_1000_publictect.csv", lines(row(4, "It rains.")))
    write(tmp_path / "references_val_new.csv", "0003_A_Film_00.00.51.926-00.00.54.129\t_\r\n")
    benchmark, _ = read("lsmdc", tmp_path, needs=("train", "validation", "test"))
    assert benchmark.splits["train"].videos[0].captions == ('SOMEONE says "no.',)
    assert benchmark.splits["test"].videos[0].id == "0004_A_Film_00.00.51.926-00.00.54.129"
    assert benchmark.splits["test"].videos[0].span is None, "clips are cut already"
    assert not any("clips more" in line for line in benchmark.differences)


def test_didemo_is_a_paragraph_a_video_whatever_its_ending(tmp_path: Path) -> None:
    first, second = "12345678@N00_1234567890_0123456789", "12345678@N00_1234567891_0123456789"
    said = [
        (f"{first}.mov", "a dog runs"),
        (f"{second}.", "rain"),
        (f"{first}.mov", "it stops"),
        (f"{first}.mp4", "again"),
    ]
    records = [{"video": name, "description": text, "times": [[0, 1]], "num_segments": 6} for name, text in said]
    write(tmp_path / "test_data.json", records)
    alone, _ = read("didemo", tmp_path)
    assert [video.captions for video in alone.splits["test"].videos] == [("a dog runs it stops again",), ("rain",)]
    assert any("3 names of 2 videos" in line for line in alone.differences)
    write(tmp_path / "test_list.txt", lines(f"{first}.mov", f"{second}."))
    listed, _ = read("didemo", tmp_path)
    assert [video.captions for video in listed.splits["test"].videos] == [("a dog runs it stops",), ("rain",)]
    assert listed.splits["test"].videos[0].span == Span(0, 31)
    assert listed.protocol.queries == "paragraph"
    assert any(
        "of the 1 not in the list 1 are listed videos with another ending" in line for line in listed.differences
    )


def test_activitynet_is_a_paragraph_over_the_whole_video(tmp_path: Path) -> None:
    def videos(*names: str) -> dict[str, Any]:
        times = [[0, 10.5], [10, 82.7]]
        return {name: {"duration": 82.7, "sentences": [" A. ", "B."], "timestamps": times} for name in names}

    train, test = [f"v_{one}" for one in TUBE[:2]], [f"v_{one}" for one in TUBE[2:5]]
    write(tmp_path / "train.json", videos(*train))
    write(tmp_path / "val_1.json", videos(*test))
    write(tmp_path / "val_ids.json", test[:2])
    benchmark, _ = read("activitynet", tmp_path, needs=("train", "test"))
    video = benchmark.splits["test"].videos[0]
    assert ids(benchmark, "train") == train
    assert ids(benchmark, "test") == test[:2]
    assert video.captions == ("A. B.",)
    assert video.span == Span(0, 82.7)
    assert video.names == (test[0], TUBE[2])
    assert benchmark.selection is None, "val_1 is the test"


def test_kinetics_csv_and_a_list_that_numbers_otherwise(tmp_path: Path) -> None:
    write(tmp_path / "label_map_k400.txt", lines("abseiling", "air drumming", "zumba"))
    rows = [
        f"{label},{tube},7,17,val,0" for label, tube in zip(("zumba", "abseiling", "air drumming"), TUBE, strict=False)
    ]
    write(tmp_path / "kinetics-400_val.csv", lines("label,youtube_id,time_start,time_end,split,is_cc", *rows))
    write(tmp_path / "my_val.csv", lines(f"{TUBE[0]}.mp4,0", f"{TUBE[1]}.mp4,1", f"{TUBE[2]}.mp4,2"))
    write(tmp_path / "train.csv", lines(f"{TUBE[5]}.mp4,0", f"{TUBE[6]}.mp4,2"))
    benchmark, _ = read("kinetics400", tmp_path, needs=("train", "test"))
    assert [video.label for video in benchmark.splits["test"].videos] == [2, 0, 1]
    assert benchmark.splits["test"].videos[0].names == (f"{TUBE[0]}_000007_000017", TUBE[0])
    assert [video.label for video in benchmark.splits["train"].videos] == [2, 1], "the list's own numbers: 0 is zumba"
    assert any("my_val.csv numbers 3 of 3 classes otherwise" in line for line in benchmark.differences)


@pytest.mark.parametrize("count", ["600", "700"])
def test_larger_kinetics_are_read_as_the_first(count: str, tmp_path: Path) -> None:
    rows = [f"{label},{tube},7,17,validate" for label, tube in zip(("zumba", "abseiling"), TUBE, strict=False)]
    head = "label,youtube_id,time_start,time_end,split"
    write(tmp_path / f"kinetics-{count}_val.csv", lines(head, *rows))
    write(tmp_path / f"kinetics{count}_train_list_videos.txt", lines(f"zumba/{TUBE[4]}.mp4 1"))
    benchmark, _ = read(f"kinetics{count}", tmp_path)
    assert [video.label for video in benchmark.splits["test"].videos] == [1, 0]
    assert benchmark.describe() == (
        f"Kinetics-{count}, test: 2 videos, 2 classes; the official validation split is the test"
    )


def test_diving48_has_its_dives_by_their_four_parts(tmp_path: Path) -> None:
    write(tmp_path / "Diving48_vocab.json", [["Back", "15som", "05Twis", "FREE"], ["Inward", "Dive", "NoTwis", "PIKE"]])
    record = {"vid_name": f"{TUBE[0]}_00155", "label": 1, "start_frame": 0, "end_frame": 48}
    write(tmp_path / "Diving48_V2_test.json", [record])
    write(tmp_path / "Diving48_V2_train.json", [record | {"vid_name": f"{TUBE[1]}_00001", "label": 0}])
    benchmark, _ = read("diving48", tmp_path, needs=("train", "test"))
    assert benchmark.labels == ("Back 15som 05Twis FREE", "Inward Dive NoTwis PIKE")
    assert [(one.id, one.label) for one in benchmark.splits["test"].videos] == [(f"{TUBE[0]}_00155", 1)]
    assert [one.label for one in benchmark.splits["train"].videos] == [0]


def test_ssv2_by_template_and_by_number(tmp_path: Path) -> None:
    write(tmp_path / "something-something-v2-labels.json", {"Moving something up": "0", "Moving something down": "1"})
    template = "Moving [something] down"
    record = {"id": "5", "label": "moving a cup down", "template": template, "placeholders": ["a cup"]}
    write(tmp_path / "something-something-v2-validation.json", [record])
    write(tmp_path / "train.txt", lines("7 52 1", "8 30 0"))
    benchmark, _ = read("ssv2", tmp_path, needs=("train", "test"))
    assert [(video.id, video.label) for video in benchmark.splits["test"].videos] == [("5", 1)]
    assert [(video.id, video.label) for video in benchmark.splits["train"].videos] == [("7", 1), ("8", 0)]
    assert "no flips" in benchmark.describe()


def test_hmdb_s_release_and_path_class_lists(tmp_path: Path) -> None:
    release, listed = tmp_path / "release", tmp_path / "lists"
    write(release / "brush_hair_test_split1.txt", "a.avi 1 \nb c.avi 2 \nc.avi 0 \n")
    write(release / "catch_test_split1.txt", "d.avi 1\ne.avi 2\n")
    benchmark, _ = read("hmdb51", release, needs=("train", "test"))
    assert [(one.id, one.label) for one in benchmark.splits["test"].videos] == [("b c", 0), ("e", 1)]
    assert benchmark.labels == ("brush_hair", "catch")
    write(listed / "hmdb51_labels.csv", lines("id,name", "0,brush hair", "1,catch"))
    write(listed / "hmdb51_train_split_1_videos.txt", lines("brush_hair/a.avi 0", "catch/d.avi 1"))
    write(listed / "hmdb51_test_split_1_videos.txt", lines("e.avi 1"))
    numbered, _ = read("hmdb51", listed, needs=("train", "test"))
    assert [(one.id, one.label) for one in numbered.splits["train"].videos] == [("a", 0), ("d", 1)]
    assert [(one.id, one.label) for one in numbered.splits["test"].videos] == [("e", 1)]


def test_ucf_counts_from_one_and_tests_by_folder(tmp_path: Path) -> None:
    write(tmp_path / "classInd.txt", lines("1 Archery", "2 Biking"))
    write(tmp_path / "trainlist01.txt", lines("Archery/v_Archery_g08_c01.avi 1", "Biking/v_Biking_g08_c01.avi 2"))
    write(tmp_path / "testlist01.txt", lines("Biking/v_Biking_g01_c01.avi"))
    benchmark, _ = read("ucf101", tmp_path, needs=("train", "test"))
    assert [one.label for one in benchmark.splits["train"].videos] == [0, 1]
    assert [one.label for one in benchmark.splits["test"].videos] == [1]
    assert benchmark.labels == ("Archery", "Biking")


def test_files_of_other_names_are_known_by_their_content(tmp_path: Path) -> None:
    names = [f"video{n}" for n in range(8000, 9000)]
    write(tmp_path / "ids.csv", lines("video_id", *(f"video{n}" for n in range(6513))))
    write(tmp_path / "everything.json", msrvtt_json(*(f"video{n}" for n in range(6513)), *names))
    write(tmp_path / "the queries.csv", lines("video_id,sentence", *(f"{name},a man {name}" for name in names)))
    _, finder = read("msrvtt", tmp_path, variant="1ka-7k", files={"train": "ids.csv"})
    assert any(line.startswith("captions: everything.json (by its content)") for line in finder.chosen)
    assert any(line.startswith("test: the queries.csv (by its content)") for line in finder.chosen)
    assert any(line.startswith("train: ids.csv (files.train)") for line in finder.chosen)


def test_didemo_s_descriptions_may_lie_in_a_file_of_any_name(tmp_path: Path) -> None:
    name = "12345678@N00_1234567890_0123456789"
    write(tmp_path / "said.json", [{"video": f"{name}.mov", "description": "rain", "times": [[0, 1]]}])
    write(tmp_path / "test_list.txt", lines(f"{name}.mp4"))
    benchmark, _ = read("didemo", tmp_path)
    assert benchmark.splits["test"].videos[0].captions == ("rain",)


def test_rows_without_a_split_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "captions.csv", "video,caption,split\na.mp4,x,test\nb.mp4,y,\n")
    benchmark, _ = read("folder", tmp_path)
    assert ids(benchmark, "test") == ["a.mp4"]
    assert benchmark.differences == ("1 videos of the table have no split, and are left out",)


def test_numbers_that_no_file_can_check_are_said_to_be_so(tmp_path: Path) -> None:
    write(tmp_path / "label_map_k400.txt", lines("abseiling", "zumba"))
    write(tmp_path / "val.csv", lines(f"{TUBE[0]}.mp4,1"))
    benchmark, _ = read("kinetics400", tmp_path)
    assert benchmark.splits["test"].videos[0].label == 1
    assert any(
        "taken to be those of label_map_k400.txt; no file can check it" in line for line in benchmark.differences
    )


def test_names_and_times_are_read_as_they_are_written() -> None:
    assert id_of("a/b/video7010.MP4") == "video7010"
    assert id_of("0001_A_Film_00.00.51.926-00.00.54.129") == "0001_A_Film_00.00.51.926-00.00.54.129"
    assert id_of(".mp4") == ".mp4"
    assert stem_of("1@N00_2_ab.null") == stem_of("1@N00_2_ab.") == "1@N00_2_ab"
    assert seconds("01.02.03.500") == 3723.5
    assert seconds("1.2") is None
    assert plain('Putting [something] "up"_') == "putting something up"


def test_windows_line_ends_and_byte_order_marks_are_taken(tmp_path: Path) -> None:
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_bytes(
        b"\xef\xbb\xbfvideo_id,sentence\r\nvideo1,a caf\xc3\xa9\r\n\r\n"
    )
    benchmark, _ = read("msrvtt", tmp_path)
    assert benchmark.splits["test"].videos[0].captions == ("a café",)


def test_a_number_that_stands_for_two_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "label_map.txt", lines("abseiling", "zumba"))
    rows = [f"{label},{tube},7,17,val,0" for label, tube in zip(("zumba", "abseiling"), TUBE, strict=False)]
    write(tmp_path / "kinetics-400_val.csv", lines("label,youtube_id,time_start,time_end,split,is_cc", *rows))
    write(tmp_path / "my_val.csv", lines(f"{TUBE[0]}.mp4,0", f"{TUBE[1]}.mp4,0"))
    with pytest.raises(
        DataError, match=r"my_val\.csv, line 2: class 0 is 'abseiling' by .*line 3, and 'zumba' by a video"
    ):
        read("kinetics400", tmp_path)
