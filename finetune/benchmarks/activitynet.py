"""ActivityNet Captions (Krishna et al., ICCV 2017) as paragraph retrieval: all sentences of a video, joined, are its query.

train.json has 10,009 videos, val_1.json 4,917, which everybody tests on; the second annotators' val_2.json speaks of the same
videos, so there is no split to select on. The whole video is looked at, to its stated duration. Ids begin with v_; files may
or may not.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.assemble import Joiner, check_apart
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, Span, SplitName, Video
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import (  # fmt: skip
    ID_LIST,
    STAN,
    UMT,
    Dialect,
    Gather,
    Record,
    Records,
    field,
    first_value,
    texts_of,
)

VARIANTS = ("",)
_ID = r"v_[\w-]{11}"


def _is_release(content: Content) -> bool:
    first = first_value(content)
    return isinstance(first, dict) and {"sentences", "timestamps"} <= set(first)


def _read_release(content: Content) -> Records:
    """Sentences in the file's order; each must have its pair of times. `span` is the whole video."""
    gather = Gather(content.file)
    for name, one in content.value.items():
        place = f"video {name!r}"
        said = texts_of(field(one, "sentences", list, content.file, place), content.file, place)
        times = field(one, "timestamps", list, content.file, place)
        if len(times) != len(said):
            raise DataError(
                f"{content.file}, {place}: {len(said)} sentences and {len(times)} timestamps; expected as many"
            )
        for pair in times:
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(time, int | float) for time in pair)):
                raise DataError(f"{content.file}, {place}: the timestamp {pair!r}; expected [start, end] in seconds")
        duration = field(one, "duration", float, content.file, place)
        if not 0 < duration < 1e6:
            raise DataError(f"{content.file}, {place}: a duration of {duration} s")
        gather.add(Record(name, place, said, span=Span(0.0, duration)))
    return gather.done()


RELEASE = Dialect(
    "ActivityNet's json", '{"v_...": {"duration", "sentences", "timestamps"}}', _is_release, _read_release
)  # fmt: skip
DIALECTS = (RELEASE,)

_PUBLISHED: dict[SplitName, tuple[Published, ...]] = {
    "train": (Published(10_009, 10_009, "the release"),),
    "test": (Published(4917, 4917, "the release's val_1"), Published(4885, 4885, "the release's val_2")),
}
_CAPTIONS = Role(
    "captions",
    "the sentences, train.json and val_1.json",
    ("train.json val_1.json", "*anet*train*.json *anet*val_1*.json", "*activitynet*.json"),
    (RELEASE, STAN, UMT),
    like=_ID,
    many=True,
)
_LISTS = {
    "train": Role("train", "the training ids", ("train_ids.json", "*train_ids*.json"), (ID_LIST, RELEASE, STAN, UMT)),
    "test": Role("test", "the ids of val_1", ("val_ids.json", "*val_ids*.json"), (ID_LIST, RELEASE, STAN, UMT)),
}
_WITHIN: dict[SplitName, str] = {"train": "train", "test": "val"}


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """train.json and val_1.json, kept to the ids of their lists where there are such."""
    joiner = Joiner(finder, _CAPTIONS, needs)
    for name, published in _PUBLISHED.items():
        data = next((table for table in joiner.tables if _WITHIN[name] in table.file.name.lower()), None)
        listed = finder.table(_LISTS[name], needed=name in needs and data is None)
        if listed and data and (more := len(data.records.keys() - listed.records.keys())):
            joiner.differences.append(
                f"{name}: {data.file.name} has {len(data.records):,} videos, {listed.file.name} {len(listed.records):,}; "
                f"{more:,} of the json are not in the list, and are left out"
            )
        joiner.add(name, listed or data, published, _video)
    check_apart(joiner.splits)
    protocol = Protocol("ActivityNet Captions (val_1)", "retrieval", "paragraph")
    return Benchmark("activitynet", "", protocol, joiner.splits, differences=tuple(joiner.differences))


def _video(listed: Record, spoken: Record) -> Video:
    paragraph = " ".join(spoken.captions)
    return Video(listed.id, (paragraph,), span=spoken.span, names=(listed.id, listed.id.removeprefix("v_")))
