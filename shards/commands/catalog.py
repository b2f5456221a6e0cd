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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import IO, NamedTuple

from stillreel.configs import DataError, RequestError
from stillreel.configs.stream import CatalogSettings
from stillreel.configs.system.claims import parse_json
from stillreel.configs.system.progress import Progress, amount, tally
from stillreel.configs.system.storage import Folder, check_bucket, folder_that_is_there, refuse_overlap
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


def run(tars: str, out: str, settings: CatalogSettings) -> int:
    """`stillreel catalog TARS OUT`: 0 when all is well, 1 when some of the tars are damaged (what is whole is listed)."""
    source, folder = folder_that_is_there(tars, "TARS"), Folder(out)
    refuse_overlap(source, folder)
    check_bucket(folder)
    if folder.exists(MANIFEST):
        raise RequestError(f"OUT {folder.url} is a data set of stillreel's; choose a folder for the catalog alone")
    names, problems = _finished(source)
    folder.remove_unfinished("index")
    if folder.exists(CATALOG):
        folder.remove(CATALOG)  # a catalog that is half old and half new would lie
    lines: list[CatalogLine] = []
    kinds: Counter[str] = Counter()
    bare = 0
    threads = settings.workers or os.cpu_count() or 1
    with Progress(len(names), "tars", settings.progress) as progress, ThreadPoolExecutor(threads) as pool:
        for scan in pool.map(partial(_scan, source), names):
            problems += [f"{scan.name}: {problem}" for problem in scan.problems]
            kinds.update(scan.kinds)
            bare += scan.bare
            folder.publish(index_file(scan.name), encode_index(scan.entries))
            digest = digest_of_samples(entry.sha256 for entry in scan.entries)
            lines.append(CatalogLine(scan.name, len(scan.entries), scan.size, digest))
            progress.advance(1, f"{len(problems)} problems" if problems else "")
    body = Catalog(source.url, lines, problems)
    folder.publish(CATALOG, json.dumps(asdict(body), sort_keys=True, indent=1).encode() + b"\n")
    for problem in problems[:_SHOWN]:
        print(f"PROBLEM {problem}", flush=True)
    if len(problems) > _SHOWN:
        print(f"... and {len(problems) - _SHOWN:,} more problems, in {folder.url}/{CATALOG}", flush=True)
    if bare:
        print(f"left out: {bare:,} samples that have no picture and no video, but texts alone", flush=True)
    return _report(open_corpus(out), kinds, problems)


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
