"""Every real annotation file parses, and has the counts that were published; where it has not, the difference is named."""

from __future__ import annotations

import functools
import json
import pickle
from pathlib import Path

import pytest

from stillreel.animate.sources import open_source
from stillreel.configs import RequestError
from stillreel.configs.build import SourceSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.benchmarks import Benchmark, open_benchmark
from stillreel.finetune.benchmarks.classes import LABELS, label_names
from stillreel.finetune.benchmarks.files import AnnotationFile, Inventory, parse
from stillreel.finetune.benchmarks.find import Finder
from stillreel.finetune.benchmarks.lsmdc import CLIP_LIST
from stillreel.finetune.benchmarks.records import ID_LIST, read_table
from tests.finetune.benchmarks.making import read
from tests.finetune.benchmarks.making import settings as benchmark_settings
from tests.making import SHARED, needs_shared

ANNOTATIONS = SHARED / "data" / "annotations"
pytestmark = needs_shared

Counts = dict[str, tuple[int, int]]


@functools.cache
def real(name: str, variant: str = "") -> tuple[Benchmark, Finder]:
    """A benchmark of the real files, which several tests look at. No list is let pass that is shorter than published."""
    return read(name, ANNOTATIONS / name, variant=variant, allow_missing=False)


@pytest.mark.parametrize(
    ("name", "variant", "counts", "selection"),
    [
        ("msrvtt", "1ka-9k", {"train": (9000, 180_000), "test": (1000, 1000)}, None),
        ("msrvtt", "1ka-7k", {"train": (7010, 140_200), "test": (1000, 1000)}, None),
        ("msrvtt", "1kb", {"train": (6656, 133_120), "test": (1000, 1000)}, None),
        (
            "msrvtt",
            "full",
            {"train": (6513, 130_260), "validation": (497, 9940), "test": (2990, 59_800)},
            "validation",
        ),
        (
            "msvd",
            "",
            {"train": (1200, 48_774), "validation": (100, 4290), "test": (670, 27_763)},
            "validation",
        ),
        ("didemo", "", {"validation": (1065, 1065), "test": (1004, 1004)}, "validation"),
        ("kinetics400", "", {"test": (19_906, 0)}, None),
        ("ssv2", "", {"train": (168_913, 0), "test": (24_777, 0)}, None),
    ],
)
def test_real_files_give_the_published_counts(name: str, variant: str, counts: Counts, selection: str | None) -> None:
    benchmark, _ = real(name, variant)
    assert {key: (len(one.videos), one.captions) for key, one in benchmark.splits.items()} == counts
    assert benchmark.selection == selection
    for split in benchmark.splits.values():
        assert all(video.captions or video.label is not None for video in split.videos)


def test_the_whole_of_msrvtt_is_ten_thousand_videos_of_twenty_captions() -> None:
    benchmark, _ = real("msrvtt", "full")
    videos = [video for split in benchmark.splits.values() for video in split.videos]
    assert len({video.id for video in videos}) == 10_000
    assert {len(video.captions) for video in videos} == {20}


def test_sentences_of_1ka_that_are_no_caption_of_the_release_are_counted() -> None:
    benchmark, _ = real("msrvtt", "1ka-9k")
    (said,) = benchmark.differences
    assert said.startswith("test: 32 of 1,000 sentences of MSRVTT_JSFUSION_test.csv are not among the captions")


def test_didemo_s_lists_and_json_differ_by_second_spellings_and_that_is_named() -> None:
    benchmark, _ = real("didemo")
    said = "\n".join(benchmark.differences)
    assert "validation: val_data.json has 1,094 names and 4,180 descriptions, val_list.txt 1,065 names" in said
    assert "test: test_data.json has 1,037 names and 4,021 descriptions, test_list.txt 1,004 names" in said
    assert "of the 33 not in the list 33 are listed videos with another ending" in said
    assert "train: 8,392 videos in train_list.txt, and no captions of them: left out" in said


def test_a_kinetics_list_and_the_csv_differ_and_that_is_named() -> None:
    benchmark, finder = real("kinetics400")
    said = "\n".join(benchmark.differences)
    assert "19,906 videos in kinetics-400_val.csv, 19,787 in uniformer_val.csv (119 only in the former" in said
    assert "uniformer_val.csv numbers 400 of 400 classes otherwise" in said
    assert "(0 is 'riding a bike', not 'abseiling')" in said
    assert len(benchmark.labels) == 400
    assert any("kinetics_400_labels_xclip.csv says the same" in line for line in finder.aside)


def test_a_kinetics_list_is_a_known_size_and_its_classes_are_those_of_the_csv() -> None:
    values = {"files": {"test": "uniformer_val.csv"}}
    benchmark, _ = read("kinetics400", ANNOTATIONS / "kinetics400", allow_missing=False, **values)
    assert len(benchmark.splits["test"].videos) == 19_787
    assert "19,787 videos in the files, 19,906 published (the official csv): that is UniFormer's list" in "\n".join(
        benchmark.differences
    )
    assert benchmark.describe().count("published with 19,906") == 1
    by_csv = {video.id: video.label for video in real("kinetics400")[0].splits["test"].videos}
    assert all(by_csv[video.id] == video.label for video in benchmark.splits["test"].videos)


def test_ssv2_s_json_and_tsm_s_list_agree_on_every_class(tmp_path: Path) -> None:
    by_json, _ = real("ssv2")
    (tmp_path / "names.json").write_bytes((ANNOTATIONS / "ssv2" / "something-something-v2-labels.json").read_bytes())
    files = {"test": str(ANNOTATIONS / "ssv2" / "somesomev2_rgb_validation_split.txt"), "labels": "names.json"}
    by_list, _ = read("ssv2", tmp_path, files=files)
    assert {video.id: video.label for video in by_json.splits["test"].videos} == {
        video.id: video.label for video in by_list.splits["test"].videos
    }
    assert any("27,157 videos without labels" in line for line in by_json.differences)
    assert not any("otherwise" in line for line in by_json.differences)


def test_vatex_has_lists_here_and_no_captions_which_is_asked_for() -> None:
    with pytest.raises(RequestError, match=r"vatex_data\.json.*files\.captions="):
        read("vatex", ANNOTATIONS / "vatex")


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("vatex/train_list.txt", 25_991),
        ("vatex/val_list.txt", 1500),
        ("vatex/test_list.txt", 1500),
        ("vatex/test1k5_sec_list.txt", 1500),
        ("didemo/train_list.txt", 8392),
        ("msrvtt/lists/train_list_jsfusion.txt", 9000),
        ("msrvtt/lists/val_list_jsfusion.txt", 1000),
        ("msrvtt/lists/train_list_miech.txt", 6656),
        ("msrvtt/lists/test_list_miech.txt", 1000),
        ("msrvtt/lists/train_list_full.txt", 6513),
        ("msrvtt/lists/val_list_full.txt", 497),
        ("msrvtt/lists/test_list_full.txt", 2990),
    ],
)
def test_lists_of_ids_parse(file: str, count: int) -> None:
    assert len(read_table(AnnotationFile(ANNOTATIONS / file), [ID_LIST]).records) == count


@pytest.mark.parametrize(("file", "count"), [("references_val_new.csv", 7408), ("valSets.csv", 7408)])
def test_lists_of_lsmdc_s_clips_parse(file: str, count: int) -> None:
    assert len(read_table(AnnotationFile(ANNOTATIONS / "lsmdc" / file), [CLIP_LIST]).records) == count


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("kinetics400/kinetics_400_labels_actionclip.csv", 400),
        ("kinetics400/kinetics_400_labels_xclip.csv", 400),
        ("kinetics400/label_map_i3d.txt", 400),
        ("kinetics400/label_map_k400.txt", 400),
        ("kinetics400/mini_kinetics400.txt", 200),
        ("ssv2/something-something-v2-labels.json", 174),
        ("ssv2/category.txt", 174),
        ("ssv2/label_map.txt", 174),
        ("ssv2/mini_ssv2.txt", 87),
        ("other/hmdb51_labels.csv", 51),
        ("other/ucf_labels.csv", 101),
    ],
)
def test_names_of_classes_parse(file: str, count: int) -> None:
    assert len(label_names(read_table(AnnotationFile(ANNOTATIONS / file), LABELS))) == count


@pytest.mark.parametrize(
    "file",
    [
        "ssv2/contrastive_groups_list.txt",
        "ssv2/augmentation_mappings.json",
        "ssv2/additional_antonyms_mapping_ssv2.json",
    ],
)
def test_what_is_no_split_and_no_captions_parses_too(file: str) -> None:
    content = parse(AnnotationFile(ANNOTATIONS / file))
    assert content.lines or content.value


def test_every_annotation_file_parses() -> None:
    """Image-text lists are the build's sources; the rest is of benchmarks."""
    for file in Inventory(str(ANNOTATIONS)).annotations:
        name = str(file.path.relative_to(ANNOTATIONS))
        if not name.startswith("image_text_lists/") and file.path.suffix != ".py":
            parse(file)
    lists = Folder(str(ANNOTATIONS / "image_text_lists"))
    source = open_source(f"{lists.url}/coco_captions_val2017.json", SourceSettings())
    assert sum(1 for _ in source.listing()) == 5000


def test_the_derived_files_parse_and_equal_what_they_were_made_from(tmp_path: Path) -> None:
    captions = json.loads((ANNOTATIONS / "msvd" / "captions_msvd.json").read_text())
    pickled = {name: [one.split() for one in spoken] for name, spoken in captions.items()}
    for name in ("train_list.txt", "val_list.txt", "test_list.txt"):
        (tmp_path / name).write_bytes((ANNOTATIONS / "msvd" / name).read_bytes())
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(pickled))
    from_pickle, _ = read("msvd", tmp_path)
    from_json, _ = real("msvd")
    assert sum(split.captions for split in from_pickle.splits.values()) == 80_827
    for name, split in from_json.splits.items():
        assert [(one.id, one.captions) for one in split.videos] == [
            (one.id, one.captions) for one in from_pickle.splits[name].videos
        ]


def test_real_clips_are_found_by_the_real_annotations(tmp_path: Path) -> None:
    """Ten of MSR-VTT's test and five of MSVD's are there; the rest is missing, and counted."""
    values = {"videos": str(SHARED / "data" / "videos"), "allow_missing": True}
    settings = benchmark_settings(ANNOTATIONS / "msrvtt", variant="full", **values)
    located = open_benchmark("msrvtt", settings).located
    assert len(located.benchmark.splits["test"].videos) == 2990
    assert len(located.missing["test"]) == 2980
    assert all(path.is_file() for path in located.paths.values())
    msvd = benchmark_settings(ANNOTATIONS / "msvd", **values)
    found = open_benchmark("msvd", msvd, needs=()).located
    assert len(found.paths) == 5
