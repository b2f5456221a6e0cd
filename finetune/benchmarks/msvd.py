"""MSVD (Chen and Dolan, ACL 2011): 1,970 clips of YouTube, about 41 captions each, split 1,200 / 100 / 670.

Every caption is a query (all of them: older papers sampled 5); a video's score for its captions is the best one's. The
captions are raw-captions.pkl, {id: [[word, ...], ...]}, or the same as JSON. Clips are named by id, or vid1.avi to
vid1970.avi with youtube_mapping.txt (`id vid1`).
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.assemble import Joiner, check_apart
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, SplitName, Video
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import ID_LIST, STAN, UMT, Dialect, Gather, Record, Records

VARIANTS = ("",)
_ID = r"[\w-]{11}_\d+_\d+"


def _is_mapping(content: Content) -> bool:
    return content.is_text and len(content.first.split()) == 2 and content.first.split()[1].startswith("vid")


def _read_mapping(content: Content) -> Records:
    """`label` is the vidN of a clip."""
    gather = Gather(content.file)
    taken: dict[str, int] = {}
    for number, text in content.lines:
        words = text.split()
        if len(words) != 2 or not words[1].startswith("vid"):
            raise DataError(f"{content.file}, line {number}: expected `id vidN`, found {text[:80]!r}")
        if words[1] in taken:
            raise DataError(
                f"{content.file}, line {number}: {words[1]} stands there again; first: line {taken[words[1]]}"
            )
        taken[words[1]] = number
        gather.add(Record(words[0], f"line {number}", label=words[1]))
    return gather.done()


MAPPING = Dialect("MSVD's youtube mapping", "`id vidN` lines", _is_mapping, _read_mapping)
DIALECTS = (MAPPING,)

_CAPTIONS = Role(
    "captions",
    "the captions, raw-captions.pkl or the same as JSON: {id: [caption, ...]}",
    ("raw-captions.pkl", "raw*captions*.pkl", "*captions*msvd*.json", "*msvd*captions*.json", "raw*captions*.json"),
    (STAN, UMT),
    like=_ID,
)
_MAPPING = Role("mapping", "the clips' names, `id vidN` lines", ("*youtube*mapping*.txt",), (MAPPING,))
_PUBLISHED: dict[SplitName, tuple[Published, ...]] = {
    "train": (Published(1200, 48_774, "the usual lists"),),
    "validation": (Published(100, 4290, "the usual lists"),),
    "test": (Published(670, 27_763, "the usual lists"),),
}
_NAMES = {"train": "train", "validation": "val", "test": "test"}


def _role(name: SplitName) -> Role:
    count = _PUBLISHED[name][0].videos
    globs = (f"{_NAMES[name]}_list.txt", f"*{_NAMES[name]}*list*.txt", f"*msvd*{_NAMES[name]}*.json")
    return Role(name, f"the {count:,} ids of the {name} split", globs, (ID_LIST, STAN, UMT), like=_ID, sizes=(count,))


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Three lists, joined with the captions."""
    joiner = Joiner(finder, _CAPTIONS, needs)
    mapping = finder.table(_MAPPING, needed=False)

    def video(listed: Record, spoken: Record) -> Video:
        other = mapping.records.get(listed.id) if mapping else None
        return Video(listed.id, spoken.captions, names=(listed.id, other.label) if other else (), path=spoken.path)

    for name, published in _PUBLISHED.items():
        joiner.add(name, joiner.list_of(_role(name), name), published, video)
    check_apart(joiner.splits)
    if len(joiner.splits) == len(_PUBLISHED):
        joiner.check_complete("MSVD")
    protocol = Protocol("MSVD", "retrieval", "every")
    return Benchmark("msvd", "", protocol, joiner.splits, differences=tuple(joiner.differences))
