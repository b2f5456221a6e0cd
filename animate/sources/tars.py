"""Pictures in tars: folders made by img2dataset, and any WebDataset shards of one picture and its caption a sample.

img2dataset fills a tar in the order in which downloads end, keeps a row for every failed one in the Parquet file beside
it, and writes `_stats.json` last: a tar without stats is one that it will make again. So the tars say what there is, the
tables what there should be, and stats which of them count. Samples are listed by key, whatever their order in the tar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, ClassVar, NamedTuple

import pyarrow.parquet as pq

from stillreel.animate.sources.base import MAX_FILE_BYTES, PICTURE_ENDINGS, Source
from stillreel.animate.sources.captions import clean
from stillreel.configs import RequestError
from stillreel.configs.build import SourceSettings
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.storage import Folder, Range
from stillreel.shards.format.foreign import Damage, read_members, split_name
from stillreel.shards.format.plan import Listed, PlannedSample

_SCANNERS = 8  # tars scanned at once: it waits for the disk or the bucket
_CAPTION_ENDINGS = ("txt", "json")
_LARGEST_CAPTION = 1 << 20


class Found(NamedTuple):
    """A member of a tar, by the ending of its name."""

    ending: str
    offset: int
    size: int


class Scan(NamedTuple):
    """Members of one tar by key, in their order there; what is wrong with some of them, by key, as a plan has it; and all that
    is damaged, whether or not it shows whose it was."""

    members: dict[str, list[Found]]
    texts: dict[tuple[str, str], bytes]
    problems: dict[str, str]
    damages: list[str]


class TarSource(Source):
    kind: ClassVar[str] = "tars"

    def __init__(self, folder: Folder, settings: SourceSettings, only: str = "") -> None:
        super().__init__(folder, settings)
        self._only = only

    def parts(self) -> list[tuple[str, int | str]]:
        sizes = self._sizes()
        return [(name, size) for name, size in sizes.items() if name.endswith((".tar", ".parquet", "_stats.json"))]

    def listing(self) -> Iterator[Listed]:
        tars = self._finished(self._sizes())
        with ThreadPoolExecutor(_SCANNERS) as pool:
            # A window of scans ahead of the consumer, so that memory does not grow with the number of tars.
            waiting = [pool.submit(self._list_tar, name) for name in tars[: 2 * _SCANNERS]]
            for number in range(len(tars)):
                listed, left_out = waiting.pop(0).result()
                self.left_out.update(left_out)
                yield from listed
                if number + 2 * _SCANNERS < len(tars):
                    waiting.append(pool.submit(self._list_tar, tars[number + 2 * _SCANNERS]))

    def read(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        ranges = [Range(self.relative(one.source), one.offset, min(one.length, MAX_FILE_BYTES + 1)) for one in samples]
        return self.folder.read_ranges(ranges)

    def _sizes(self) -> dict[str, int]:
        sizes = self.folder.sizes(deep=True)
        return {self._only: sizes[self._only]} if self._only else sizes

    def _finished(self, sizes: dict[str, int]) -> list[str]:
        """Tars that count; those that img2dataset has not finished are left out."""
        tars = [name for name in sizes if name.endswith(".tar")]
        if not tars:
            raise RequestError(
                f"SOURCE {self.folder.url} holds no .tar (compressed tars cannot be read in part: unpack .tar.gz first)"
            )
        if not any(name.endswith("_stats.json") for name in sizes):
            return tars
        finished = [name for name in tars if f"{name[: -len('.tar')]}_stats.json" in sizes]
        if len(finished) < len(tars):
            self.left_out["tars that img2dataset has not finished"] = len(tars) - len(finished)
        return finished

    def _list_tar(self, name: str) -> tuple[list[Listed], Counter[str]]:
        left_out: Counter[str] = Counter()
        with self.folder.open(name) as file:
            scan = scan_tar(file)
        if scan.damages:
            more = f" and {len(scan.damages) - 1:,} more" if len(scan.damages) > 1 else ""
            left_out[f"damages in tars ({name}: {scan.damages[0]}{more})"] += 1
        listed: dict[str, Listed] = {}
        for key, members in scan.members.items():
            pictures = [member for member in members if member.ending in PICTURE_ENDINGS]
            if not pictures:
                left_out["samples without a picture"] += 1
                continue
            listed[key] = self._listed(name, key, pictures, scan)
        expected = self._downloaded(name, left_out)
        for key in expected - listed.keys():
            listed[key] = Listed(
                f"{self.label}/{name}",
                key,
                0,
                0,
                (),
                "missing: its table has it as downloaded, the tar does not hold it",
            )
        return [listed[key] for key in sorted(listed)], left_out

    def _listed(self, name: str, key: str, pictures: list[Found], scan: Scan) -> Listed:
        captions, problem = captions_of(scan.texts.get((key, "txt")), scan.texts.get((key, "json")))
        problem = scan.problems.get(key, problem)
        if len(pictures) > 1:
            problem = f"ambiguous: {len(pictures)} pictures: {', '.join(f'.{picture.ending}' for picture in pictures)}"
        return Listed(f"{self.label}/{name}", key, pictures[0].offset, pictures[0].size, captions, problem)

    def _downloaded(self, name: str, left_out: Counter[str]) -> set[str]:
        """Keys that img2dataset's table calls successful; counts the others."""
        table_name = f"{name[: -len('.tar')]}.parquet"
        if not self.folder.exists(table_name):
            return set()
        with self.folder.open(table_name) as file, damage_of(f"{table_name} cannot be read as img2dataset's table"):
            table = pq.ParquetFile(file)
            if not {"key", "status"} <= set(table.schema_arrow.names):
                return set()
            rows = table.read(columns=["key", "status"])
            rows.validate(full=True)
            keys, states = rows["key"].to_pylist(), rows["status"].to_pylist()
        left_out.update(f"rows with status {state}" for state in states if state != "success")
        return {str(key) for key, state in zip(keys, states, strict=True) if state == "success" and key is not None}


def captions_of(txt: bytes | None, js: bytes | None) -> tuple[tuple[str, ...], str | None]:
    """Captions of a sample's text members, and what is wrong with them (`reason: detail`) if nothing can be used.

    `captions` (a list) of the JSON is preferred, as it holds them all; then the text; then `caption` or `text` of the JSON.
    """
    fields: dict[str, object] = {}
    if js is not None:
        try:
            value = parse_json(js)
            fields = value if isinstance(value, dict) else {}
        except ValueError:
            if txt is None:
                return (), "bad_caption: its JSON cannot be read"
    for name in ("captions", None, "caption", "text"):
        if name is None:
            spoken: object = txt
        else:
            spoken = fields.get(name)
        if spoken:
            return clean(spoken if isinstance(spoken, list) else [spoken])
    return (), "no_caption: neither .txt nor .json has one"


def scan_tar(file: IO[bytes]) -> Scan:
    """Read the headers of a tar, and its small text members, without its pictures."""
    members: dict[str, list[Found]] = {}
    texts: dict[tuple[str, str], bytes] = {}
    problems: dict[str, str] = {}
    damages: list[str] = []
    for member in read_members(file, file.seek(0, 2)):
        key, ending = split_name(member.name)
        if isinstance(member, Damage):
            damages.append(f"{member.name}: {member.what}" if member.name else member.what)
            if ending:
                members.setdefault(key, []).append(Found(ending, 0, 0))
                problems.setdefault(key, f"{member.reason}: its .{ending}: {member.what}")
        elif ending:
            members.setdefault(key, []).append(Found(ending, member.start, member.size))
            if ending in _CAPTION_ENDINGS and member.size <= _LARGEST_CAPTION:
                file.seek(member.start)
                texts[key, ending] = file.read(member.size)
    return Scan(members, texts, problems, damages)
