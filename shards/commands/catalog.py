"""`stillreel catalog TARS OUT`: a byte index of tars that we did not write, kept beside them, never among them.

    OUT/catalog.json        where the tars lie; samples, bytes and digest of each; what was left out. Written last
    OUT/index/NAME.idx      key, offset, length, sha256 of each sample: the same as beside our own shards

Samples are found as webdataset finds them: neighboring members of one key. Each tar is read once, whole. After that the
stream reads it as it reads ours: any later cut, hole or flipped byte is seen. What is wrong already is said here: a cut
tar, a sample in two pieces, fewer samples than the own count of img2dataset or video2dataset. A tar that holds a pickle is
refused. Samples of texts alone, which video2dataset writes of what it could not download, are left out, and counted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import IO, NamedTuple

from stillreel.configs import DataError, RequestError
from stillreel.configs.stream import CatalogSettings
from stillreel.configs.system.claims import parse_json
from stillreel.configs.system.progress import Progress, amount, tally
from stillreel.configs.system.storage import Folder, check_bucket, folder_that_is_there, refuse_overlap
from stillreel.shards.build.executors import ShardTask, open_executor
from stillreel.shards.build.hosts import Witness, proof_in
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.work import ATTEMPTS, Doubtful, work_off
from stillreel.shards.format.foreign import Damage, Member, read_members, split_name, tar_names
from stillreel.shards.format.index import Entry, encode_index
from stillreel.shards.format.manifest import MANIFEST
from stillreel.shards.format.sample import check_ending, is_bare
from stillreel.shards.format.tar import digest_of_samples
from stillreel.shards.stream.corpus import CATALOG, Catalog, CatalogLine, Corpus, index_file, open_corpus

_SHOWN = 40


class TarScan(NamedTuple):
    """A tar read whole: its samples, how many have which endings, its size, what is wrong with it, and how many samples have
    nothing but texts."""

    name: str
    entries: list[Entry]
    kinds: Counter[str]
    size: int
    problems: list[str]
    bare: int


class Indexed(NamedTuple):
    """A tar whose index is published: its line in the catalog, and of its scan what the catalog sums up."""

    line: CatalogLine
    kinds: Counter[str]
    problems: list[str]
    bare: int


def run(tars: str, out: str, settings: CatalogSettings) -> int:
    """`stillreel catalog TARS OUT`: 0 when all is well, 1 when some of the tars are damaged (what is whole is listed)."""
    source, folder = folder_that_is_there(tars, "TARS"), Folder(out)
    refuse_overlap(source, folder)
    check_bucket(folder)
    if folder.exists(MANIFEST):
        raise RequestError(f"OUT {folder.url} is a data set of stillreel's; choose a folder for the catalog alone")
    names, problems = _finished(source)
    for place in ("", "index"):
        folder.remove_unfinished(place)
    if folder.exists(CATALOG):
        folder.remove(CATALOG)  # a catalog that is half old and half new would lie
    lines: list[CatalogLine] = []
    kinds: Counter[str] = Counter()
    bare = 0
    with Progress(len(names), "tars", settings.progress) as progress:
        for one in (_on_threads if settings.ray == "off" else _on_ray)(source, folder, names, settings, progress):
            problems += [f"{one.line.name}: {problem}" for problem in one.problems]
            kinds.update(one.kinds)
            bare += one.bare
            lines.append(one.line)
    body = Catalog(source.url, lines, problems)
    folder.publish(CATALOG, json.dumps(asdict(body), sort_keys=True, indent=1).encode() + b"\n")
    for problem in problems[:_SHOWN]:
        print(f"PROBLEM {problem}", flush=True)
    if len(problems) > _SHOWN:
        print(f"... and {len(problems) - _SHOWN:,} more problems, in {folder.url}/{CATALOG}", flush=True)
    if bare:
        print(f"left out: {bare:,} samples that have no picture and no video, but texts alone", flush=True)
    return _report(open_corpus(out), kinds, problems)


def _on_threads(
    source: Folder, folder: Folder, names: Sequence[str], settings: CatalogSettings, progress: Progress
) -> Iterator[Indexed]:
    with ThreadPoolExecutor(settings.workers or os.cpu_count() or 1) as pool:
        yield from _counted(pool.map(partial(_index, source, folder), names), progress)


def _on_ray(
    source: Folder, folder: Folder, names: Sequence[str], settings: CatalogSettings, progress: Progress
) -> list[Indexed]:
    """In order, as on threads. DataError where a tar could not be read."""
    tars = (Witness(source.url, name, source.size(name) or 0) for name in names)
    tasks = (ShardTask(folder.url, 0, "", at, 1, 0, (source.url, name)) for at, name in enumerate(names))
    found: dict[str, Indexed] = {}
    with (
        proof_in(folder, library_versions(("stillreel",)), [tars]) as proof,
        open_executor(index_tar, settings.ray, min(settings.workers, len(names)), proof, settings.task) as executor,
    ):
        ends = work_off(executor, tasks, lambda task: names[task.shard], progress.beat)
        for one in _counted((_indexed(end.receipt, end.error, names[end.task.shard]) for end in ends), progress):
            found[one.line.name] = one
    return [found[name] for name in names]


def _indexed(found: Indexed | None, error: BaseException | None, name: str) -> Indexed:
    if found is None:
        raise DataError(f"{name} could not be read in {ATTEMPTS} attempts: {error}")
    return found


def _counted(found: Iterable[Indexed], progress: Progress) -> Iterator[Indexed]:
    problems = 0
    for one in found:
        problems += len(one.problems)
        progress.advance(1, f"{problems} problems" if problems else "")
        yield one


def index_tar(task: ShardTask) -> Indexed:
    """Runs on a host. Doubtful where there are problems."""
    source, name = task.job
    indexed = _index(Folder(source), Folder(task.out), name)
    if indexed.problems:
        raise Doubtful(indexed)
    return indexed


def _index(source: Folder, folder: Folder, name: str) -> Indexed:
    scan = _scan(source, name)
    folder.publish(index_file(name), encode_index(scan.entries))
    digest = digest_of_samples(entry.sha256 for entry in scan.entries)
    return Indexed(CatalogLine(name, len(scan.entries), scan.size, digest), scan.kinds, scan.problems, scan.bare)


def _report(corpus: Corpus, kinds: Counter[str], problems: list[str]) -> int:
    found = f"{len(corpus.shards):,} tars, {corpus.samples:,} samples ({tally(kinds)}), {amount(corpus.bytes)}"
    print(f"{found}; {f'{len(problems):,} problems' if problems else 'all is well'}", flush=True)
    return 1 if problems else 0


def _finished(source: Folder) -> tuple[list[str], list[str]]:
    """Tars that count, and what is wrong with the others: compressed ones, and those that their downloader has not finished."""
    found = source.listing()
    tars, packed = tar_names(found.sizes)
    if not tars:
        more = f", but {', '.join(packed[:5])}, which cannot be read in part: unpack them first" if packed else ""
        raise RequestError(f"TARS {source.url} holds no .tar{more}")
    problems = [f"{name}: left out: it is compressed and cannot be read in part: unpack it first" for name in packed]
    problems += [f"{name}: left out: {why}" for name, why in found.odd.items()]
    if not any(name.endswith("_stats.json") for name in found.sizes):
        return tars, problems
    finished = [name for name in tars if _stats_file(name) in found.sizes]
    problems += [f"{name}: left out: img2dataset has not finished it" for name in sorted({*tars} - {*finished})]
    return finished, problems


def _scan(source: Folder, name: str) -> TarScan:
    with source.open(name) as file:
        scan = scan_samples(name, file)
    try:
        stats = parse_json(source.read(_stats_file(name)))
        expected = int(stats["successes"])
        cuts_clips = "failed_to_subsample" in stats  # video2dataset, which counts videos and writes their clips
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return scan
    found = len(scan.entries)
    if found < expected or (found > expected and not cuts_clips):
        by = "video2dataset" if cuts_clips else "img2dataset"
        scan.problems.append(f"holds {found:,} samples; {by} counted {expected:,}")
    return scan


def scan_samples(name: str, file: IO[bytes]) -> TarScan:
    """Read a tar whole, member by member; RequestError when it holds what is never decoded."""
    samples: list[_Sample] = []
    problems: list[str] = []
    tainted: dict[str, str] = {}
    before: Damage | None = None  # the damage that stands before a member
    size = file.seek(0, 2)
    for member in read_members(file, size):
        key, ending = split_name(member.name)
        if isinstance(member, Damage):
            problems.append(f"{member.name}: {member.what}" if key else member.what)
            if key:
                tainted.setdefault(key, "left out: a member of it is damaged")
            elif samples:
                tainted.setdefault(samples[-1].key, "left out: the last before the damage, and maybe not whole")
            before = member
        elif key:
            _refuse_code(name, key, ending)
            if member.link:
                tainted.setdefault(
                    key, f"left out: {member.name} is a link to {member.link}, whose bytes stand elsewhere"
                )
            begins = not samples or samples[-1].key != key
            if begins:
                samples.append(_Sample(key, member.offset))
            if before and not (begins and before.name):
                tainted.setdefault(key, "left out: the first after the damage, and maybe not whole")
            samples[-1].extend(file, member, ending)
            before = None
    problems += [f"{key}: {why}" for key, why in tainted.items()]
    samples = [one for one in samples if one.key not in tainted]
    counts = Counter(sample.key for sample in samples)
    problems += [f"{key}: left out: stands in {count} places" for key, count in counts.items() if count > 1]
    problems += [f"{one.key}: left out: two members of one ending" for one in samples if one.is_double]
    sound = [one for one in samples if counts[one.key] == 1 and not one.is_double]
    whole = [one for one in sound if not is_bare(one.endings)]
    entries = [Entry(one.key, one.start, one.end - one.start, one.sha256.digest()) for one in whole]
    kinds = Counter("+".join(sorted(one.endings)) for one in whole)
    return TarScan(name, entries, kinds, size, problems, len(sound) - len(whole))


class _Sample:
    """A sample whose members are being read."""

    def __init__(self, key: str, start: int) -> None:
        self.key = key
        self.start = self.end = start
        self.sha256 = hashlib.sha256()
        self.endings: set[str] = set()
        self.is_double = False

    def extend(self, file: IO[bytes], member: Member, ending: str) -> None:
        """Add a member, and what lies between it and the one before (its header, a folder's, a foreign file)."""
        file.seek(self.end)
        while self.end < member.end:
            part = min(member.end - self.end, 1 << 20)
            self.sha256.update(file.read(part))
            self.end += part
        self.is_double |= ending in self.endings
        self.endings.add(ending)


def _refuse_code(name: str, key: str, ending: str) -> None:
    try:
        check_ending(key, ending)
    except DataError as error:
        raise RequestError(f"{name} is refused: {error}") from None


def _stats_file(tar: str) -> str:
    return f"{tar.removesuffix('.tar')}_stats.json"
