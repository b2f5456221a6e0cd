"""MSR-VTT (Xu et al., CVPR 2016): 10,000 clips of YouTube, 20 captions each.

1k-A (Yu et al., ECCV 2018, "JSFusion"): 1,000 test videos with one caption each, chosen by the authors; trained on the other
9,000, or on the 7,010 that are neither it nor the rest of the official test. 1k-B (Miech et al., 2018): 6,656 to train on, 1,000
others to test, each by the first of its captions. mc (JSFusion, too): for each of the 2,990 official test videos five sentences,
of which one is its own; trained on the other 7,010. full: the official 6,513 / 497 / 2,990, where
every caption is a query. 1,990 of its test videos are in the 9k training list, so a model of one is never tested on the other.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.assemble import Joiner, check_apart, some
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, SplitName, Video
from stillreel.finetune.benchmarks.choices import OBJECTS, TABLE, compare_options, question
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import (  # fmt: skip
    ID_LIST,
    ID_TABLE,
    STAN,
    UMT,
    Dialect,
    Gather,
    Record,
    Records,
    Table,
    field,
    text_of,
)

VARIANTS = ("1ka-9k", "1ka-7k", "1kb", "full", "mc")
_ID = r"video\d+"
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
_JSON = '{"videos": [{"video_id"}], "sentences": [{"video_id", "caption"}]}'


def _is_json(content: Content) -> bool:
    return isinstance(content.value, dict) and "sentences" in content.value


def _read_json(content: Content) -> Records:
    """`sentences` in the file's order; `videos`, where it is there, says which ids there are and their official split."""
    file, value = content.file, content.value
    splits: dict[str, str] = {}
    for number, video in enumerate(value.get("videos", []), 1):
        place = f"videos, record {number}"
        name = field(video, "video_id", str, file, place)
        if name in splits:
            raise DataError(f"{file}, {place}: video {name!r} stands there again")
        splits[name] = _SPLITS.get(str(video.get("split", "")), "")
    gather = Gather(file, adds_up=True)
    for number, sentence in enumerate(field(value, "sentences", list, file, "its outside"), 1):
        place = f"sentences, record {number}"
        name = field(sentence, "video_id", str, file, place)
        if splits and name not in splits:
            raise DataError(f"{file}, {place}: a caption of {name!r}, which is not among its {len(splits):,} videos")
        caption = text_of(field(sentence, "caption", str, file, place), file, place)
        gather.add(Record(name, place, (caption,), split=splits.get(name, "")))
    records = gather.done()
    if silent := [name for name in splits if name not in records]:
        raise DataError(f"{file}: no sentence of {len(silent):,} of its videos: {some(silent)}; is it cut off?")
    return records


JSON = Dialect("MSR-VTT's json", _JSON, _is_json, _read_json)
DIALECTS = (JSON, OBJECTS, TABLE)

_CAPTIONS = Role(
    "captions",
    f"the captions of all videos, {_JSON}",
    ("msrvtt_data*.json", "*videodatainfo*.json", "*train_val_annotation*.zip", "*msr*vtt*caption*.json"),
    (JSON,),
    like=_ID,
    many=True,
)
_LISTS = (ID_TABLE, ID_LIST, STAN, UMT)


def _list_role(setting: str, what: str, names: tuple[str, ...], sizes: tuple[int, ...]) -> Role:
    return Role(setting, what, names, _LISTS, like=_ID, sizes=sizes)


_TRAIN = {
    "1ka-9k": _list_role(
        "train",
        "the 9,000 training ids of 1k-A",
        ("msrvtt_train.9k.csv", "*train*9k*", "train_list_jsfusion.txt"),
        (9000,),
    ),
    "1ka-7k": _list_role(
        "train", "the 7,010 training ids of 1k-A", ("msrvtt_train.7k.csv", "*train*7k*"), (7010,)
    ),
    "1kb": Role(
        "train", "the 6,656 training ids of 1k-B", ("train_list_miech.txt", "*train*miech*", "*train*1kb*"), _LISTS
    ),
    "full": _list_role(
        "train", "the 6,513 official training ids", ("msrvtt_train.full.csv", "train_list_full.txt"), (6513,)
    ),
}  # fmt: skip
_TEST_1KA = Role(
    "test",
    "the 1,000 test videos of 1k-A with a sentence each",
    ("msrvtt_jsfusion_test.csv", "*jsfusion*test*.csv", "*test*jsfusion*.json", "*test*1ka*", "*test*1k-a*"),
    (ID_TABLE, STAN, UMT),
    like=_ID,
    sizes=(1000,),
)
# By name alone: 1,000 ids may as well be those of 1k-A.
_TEST_1KB = Role("test", "the 1,000 test ids of 1k-B", ("test_list_miech.txt", "*test*miech*", "*test*1kb*"), _LISTS)
_VALIDATION_FULL = _list_role(
    "validation", "the 497 official validation ids", ("msrvtt_val.full.csv", "val_list_full.txt"), (497,)
)
_TEST_FULL = _list_role(
    "test", "the 2,990 official test ids", ("msrvtt_test.full.csv", "test_list_full.txt"), (2990,)
)  # fmt: skip
_TEST_MC = Role(
    "test",
    "the 2,990 questions of MSR-VTT MC: msrvtt_mc_test.json, or JSFusion's MSR_MC_test.csv",
    ("msrvtt_mc_test.jsonl", "msrvtt_mc_test.json", "msr_mc_test.csv", "*msr*mc*test*", "*mc_test*"),
    (OBJECTS, TABLE),
    like=_ID,
    sizes=(2990,),
)
_TRAIN["mc"] = _TRAIN["1ka-7k"]
_PUBLISHED: dict[tuple[str, SplitName], tuple[Published, ...]] = {
    ("1ka-9k", "train"): (Published(9000, 180_000, "JSFusion's list"),),
    ("1ka-7k", "train"): (Published(7010, 140_200, "Miech et al.'s list"),),
    ("1ka-9k", "test"): (Published(1000, 1000, "JSFusion's list"),),
    ("1ka-7k", "test"): (Published(1000, 1000, "JSFusion's list"),),
    ("1kb", "train"): (Published(6656, 133_120, "Miech et al.'s list"),),
    ("1kb", "test"): (Published(1000, 1000, "Miech et al.'s list"),),
    ("mc", "train"): (Published(7010, 140_200, "the release"),),
    ("mc", "test"): (Published(2990, 14_950, "JSFusion's questions"),),
    ("full", "train"): (Published(6513, 130_260, "the release"),),
    ("full", "validation"): (Published(497, 9940, "the release"),),
    ("full", "test"): (Published(2990, 59_800, "the release"),),
}


def read(finder: Finder, variant: str, needs: Collection[SplitName]) -> Benchmark:
    """1k-A tests on sentences of its own list; training, and all of `full`, on all captions of the json."""
    joiner = Joiner(finder, _CAPTIONS, needs)
    roles: dict[SplitName, Role] = {"train": _TRAIN[variant], "test": _TEST_1KA}
    if variant in _OTHER_TESTS:
        roles["test"] = _OTHER_TESTS[variant]
    if variant == "full":
        roles |= {"validation": _VALIDATION_FULL, "test": _TEST_FULL}
    for name, role in roles.items():
        listed = _official(joiner, role, name) if variant == "full" else joiner.list_of(role, name)
        joiner.add(name, listed, _PUBLISHED[variant, name], _TESTED_BY.get(variant) if name == "test" else None)
        if variant == "mc" and name == "test" and listed is not None:
            joiner.differences += compare_options(joiner.splits[name], listed.file)
        if variant.startswith("1ka") and name == "test" and listed is not None:
            joiner.differences += _other_sentences(listed, joiner.spoken)
    check_apart(joiner.splits)
    if len(joiner.splits) == len(roles) and variant in ("1ka-9k", "full"):
        joiner.check_complete(f"MSR-VTT {variant}")
    title = {
        "1ka-9k": "MSR-VTT 1k-A (9k training)",
        "1ka-7k": "MSR-VTT 1k-A (7k training)",
        "1kb": "MSR-VTT 1k-B",
        "full": "MSR-VTT full",
        "mc": "MSR-VTT MC",
    }
    note = "the first of its 20 captions" if variant == "1kb" else ""
    protocol = Protocol(title[variant], "retrieval", "every" if variant == "full" else "single", note)
    if variant == "mc":
        protocol = Protocol(title[variant], "choice", "choice")
    return Benchmark("msrvtt", variant, protocol, joiner.splits, differences=tuple(joiner.differences))


def _by_first_caption(listed: Record, spoken: Record) -> Video:
    return Video(listed.id, spoken.captions[:1], path=listed.path or spoken.path)


_OTHER_TESTS = {"1kb": _TEST_1KB, "mc": _TEST_MC}
_TESTED_BY = {"1kb": _by_first_caption, "mc": question}


def _official(joiner: Joiner, role: Role, name: SplitName) -> Table | None:
    """The official split by its list, or else by what the json itself says of each video."""
    here = {record.id: record for record in joiner.spoken.values() if record.split == name}
    listed = joiner.finder.table(role, needed=name in joiner.needs and not here)
    if listed is None and here:
        table = next(table for table in joiner.tables if next(iter(here)) in table.records)
        joiner.finder.chosen.append(f"{name}: by `split` in {table.file.name}: {len(here):,} videos")
        return Table(table.file, JSON, here)
    return listed


def _other_sentences(test: Table, spoken: Records) -> list[str]:
    """JSFusion's sentences were typed anew: some are not among the captions that the release has."""
    known = [record for record in test.records.values() if record.id in spoken]
    other = [record for record in known if not set(record.captions) <= set(spoken[record.id].captions)]
    if not other:
        return []
    return [
        f"test: {len(other):,} of {len(known):,} sentences of {test.file.name} are not among the captions of their video "
        f"(outer blanks aside), as {other[0].id}'s; the list's own are used"
    ]
