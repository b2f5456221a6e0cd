"""Pictures in tars: folders made by img2dataset, and any WebDataset shards of one picture and its caption a sample.

img2dataset fills a tar in the order in which downloads end: so the tars say what there is, its tables what there should be, and
its stats which of them count. Samples are listed by key, whatever their order in the tar.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, ClassVar, NamedTuple

import pyarrow as pa

from stillreel.animate.sources.base import MAX_FILE_BYTES, PICTURE_ENDINGS, Source, SourceError
from stillreel.animate.sources.captions import LONGEST, captions_of, fields_of, too_long
from stillreel.animate.sources.img2dataset import columns_by_key, downloaded, finished
from stillreel.animate.sources.sample_filter import rows_of
from stillreel.configs.system.storage import Range
from stillreel.shards.format.foreign import Damage, read_members, split_name, tar_names
from stillreel.shards.format.plan import Listed, PlannedSample

_SCANNERS = 8  # tars scanned at once: it waits for the disk or the bucket
_log = logging.getLogger(__name__)


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
    """A sample is a key of a tar, with one picture."""

    kind: ClassVar[str] = "tars"
    _explained = False

    def parts(self) -> list[tuple[str, int | str]]:
        endings = (".tar", ".parquet", "_stats.json")
        return [(name, size) for name, size in self.sizes.items() if name.lower().endswith(endings)]

    def files(self) -> dict[str, int]:
        return {name: self.sizes[name] for name in tar_names(self.sizes)[0]}

    def listing(self) -> Iterator[Listed]:
        tars = self._tars()
        with ThreadPoolExecutor(_SCANNERS) as pool:
            # A window of scans ahead of the consumer, so that memory does not grow with the number of tars.
            waiting = [pool.submit(self._list_tar, name) for name in tars[: 2 * _SCANNERS]]
            for number in range(len(tars)):
                listed, left_out = waiting.pop(0).result()
                self.left_out.update(left_out)
                yield from listed
                if number + 2 * _SCANNERS < len(tars):
                    waiting.append(pool.submit(self._list_tar, tars[number + 2 * _SCANNERS]))

    def pictures(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        ranges = [Range(self.relative(one.source), one.offset, min(one.length, MAX_FILE_BYTES + 1)) for one in samples]
        for wanted, data in zip(ranges, self.folder.read_ranges(ranges), strict=True):
            # The last sample of a tar that was cut when it was planned lies in it in part.
            there = min(wanted.length, self.planned.get(wanted.name, 0) - wanted.offset)
            if data is None or len(data) < there:
                raise SourceError(f"{self.label}/{wanted.name} {'is not there' if data is None else 'ends early'}")
            yield data

    def _tars(self) -> list[str]:
        """Those that count."""
        tars, packed = tar_names(self.sizes)
        if packed:
            _log.warning(f"{self.folder.url}: left out: {', '.join(packed[:5])}: compressed, unpack them first")
            self.left_out["compressed tars, which cannot be read in part"] += len(packed)
        return finished(tars, self.sizes, self.left_out)

    def _list_tar(self, name: str) -> tuple[list[Listed], Counter[str]]:
        left_out: Counter[str] = Counter()
        with self.folder.open(name) as file:
            scan = scan_tar(file, self._texts())
        if scan.damages:
            more = f" and {len(scan.damages) - 1:,} more" if len(scan.damages) > 1 else ""
            left_out[f"damages in tars ({name}: {scan.damages[0]}{more})"] += 1
        listed: dict[str, Listed] = {}
        for key, members in scan.members.items():
            pictures = [member for member in members if member.ending in self._pictures()]
            if pictures:
                listed[key] = self._listed(name, key, pictures, scan)
                continue
            endings = [member.ending.rpartition(".") for member in members]
            dotted = ["".join(parts) for parts in endings if parts[0] and parts[2] in PICTURE_ENDINGS]
            left_out["pictures whose ending has a dot" if dotted else "samples without a picture"] += 1
            if dotted:
                self._explain(name, key, dotted[0])
        for key in downloaded(self.folder, f"{name[: -len('.tar')]}.parquet", left_out) - listed.keys():
            listed[key] = Listed(
                f"{self.label}/{name}",
                key,
                0,
                0,
                (),
                "missing: its table has it as downloaded, the tar does not hold it",
            )
        in_order = [listed[key] for key in sorted(listed)]
        return self.filter.judge(in_order, self._rows(name, in_order, scan)), left_out

    def _rows(self, name: str, listed: Sequence[Listed], scan: Scan) -> pa.Table:
        """Columns that are looked at, of img2dataset's table beside a tar, or else of the samples' JSON."""
        columns = self.filter.columns
        beside = f"{name[: -len('.tar')]}.parquet"
        if columns and self.folder.size(beside) is not None:
            return columns_by_key(self.folder, beside, [one.source_key for one in listed], columns)
        return rows_of(
            [fields_of(scan.texts.get((one.source_key, "json"))) for one in listed] if columns else [], columns
        )

    def _explain(self, name: str, key: str, ending: str) -> None:
        """Say, of the first, why a picture is none by WebDataset's rule."""
        if not self._explained:
            self._explained = True
            _log.warning(
                f"{name}: {key}.{ending}: by WebDataset's rule an ending begins at the first dot, so this is .{ending} of "
                f"{key}, which is left out with all that are named alike; source.picture={ending} takes these"
            )

    def _listed(self, name: str, key: str, pictures: list[Found], scan: Scan) -> Listed:
        asked = self.settings.caption.lower()
        texts = (scan.texts.get((key, ending)) for ending in ("txt", "json", asked or "txt"))
        txt, js, own = texts
        captions, problem = captions_of(txt, js, self.settings.caption, own)
        if problem and (
            long := [one for one in scan.members[key] if one.ending in self._texts() and one.size > LONGEST]
        ):
            problem = too_long(f"its .{long[0].ending}", long[0].size)
        problem = scan.problems.get(key, problem)
        if len(pictures) > 1:
            problem = f"ambiguous: {len(pictures)} pictures: {', '.join(f'.{picture.ending}' for picture in pictures)}"
        return Listed(f"{self.label}/{name}", key, pictures[0].offset, pictures[0].size, captions, problem)

    def _pictures(self) -> tuple[str, ...]:
        """Endings of pictures."""
        return (self.settings.picture.lower(),) if self.settings.picture else PICTURE_ENDINGS

    def _texts(self) -> tuple[str, ...]:
        """Endings of texts that may hold captions."""
        return ("txt", "json", self.settings.caption.lower())


def scan_tar(file: IO[bytes], texts_of: Sequence[str]) -> Scan:
    """Read the headers of a tar, and its small members of these endings, without its pictures."""
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
            if ending in texts_of and member.size <= LONGEST:
                file.seek(member.start)
                texts[key, ending] = file.read(member.size)
    return Scan(members, texts, problems, damages)
