"""What all sources are."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby, islice
from typing import Any, ClassVar

from stillreel.animate.sources.sample_filter import SampleFilter
from stillreel.configs import DataError, StorageRefused
from stillreel.configs.build import FilterSettings, SourceSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.storage import Folder, Listing, Range
from stillreel.configs.system.trouble import is_final, plain
from stillreel.shards.format.plan import Listed, PlannedSample

# A larger file is no photograph; it is read up to one byte beyond this, and rejected for its size.
MAX_FILE_BYTES = 256 << 20

PICTURE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm", "heic")

_log = logging.getLogger(__name__)
_NAMED = 5  # files that a message names
_AT_ONCE = 1000  # samples whose pictures are looked at together


class SourceError(DataError):
    """What was planned cannot be read now. That is no fault of a sample's: whoever reads it may try again, not reject it."""


class Source(ABC):
    """Stills with captions in a folder, or in those of its files that are `found`. `left_out` counts, while listing, what the
    source itself says is no sample; `planned` are the `files` of the plan that is read by: none in a plan from before they were
    kept."""

    kind: ClassVar[str]

    def __init__(self, folder: Folder, settings: SourceSettings, found: Listing | None = None) -> None:
        self.filter = SampleFilter(FilterSettings())  # everything
        self.folder = folder
        self.settings = settings
        self._found = found
        self.left_out: Counter[str] = Counter()
        self.planned: Mapping[str, int] = {}

    @abstractmethod
    def parts(self) -> list[tuple[str, int | str]]:
        """The files that decide what `listing` yields, each with its size or digest, in order."""

    @abstractmethod
    def listing(self) -> Iterator[Listed]:
        """Every sample, in an order that depends on nothing but the source's contents."""

    def wanted(self) -> Iterator[Listed]:
        """`listing`, with the bytes of each picture looked at where only they tell whether it is wanted."""
        listing = self.listing()
        while some := list(islice(listing, _AT_ONCE)):
            if not self.filter.reads_pictures:
                yield from some
                continue
            sound = [one for one in some if not one.problem]
            pictures = self.pictures(
                [
                    PlannedSample("", one.source, one.source_key, 0, 0, one.offset, one.length, one.captions, None)
                    for one in sound
                ]
            )
            yield from (one if one.problem else self.filter.judge_picture(one, next(pictures)) for one in some)

    @abstractmethod
    def files(self) -> dict[str, int]:
        """Bytes of each file that holds many pictures, which a plan keeps. Of a picture that is a file, its row has them."""

    @abstractmethod
    def pictures(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        """Bytes of the picture of each planned sample, in order; None of a row that holds none."""

    def read(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        """Bytes of the picture of each planned sample, in order; None where the plan knows a problem, or the row holds none.

        SourceError when a file is gone, is not as long as it was planned, or cannot be read now; StorageRefused when its bucket
        gives nothing to these credentials.
        """
        sound = [one for one in samples if one.problem is None]
        where = self.folder.url
        try:
            self._check_files(sound)
            pictures = self.pictures(sound)
            for number, one in enumerate(samples, 1):
                where = one.source
                data = None if one.problem else next(pictures)
                if number == len(samples):
                    self._check_files(sound)  # once more: what was put in their place meanwhile may have been read
                yield data
        except (SourceError, StorageRefused):
            raise
        except Exception as error:  # a disk, a network, a bucket, a decoder of Parquet: each has its own
            if is_final(error) and not self.folder.is_local:  # on a disk it is of one file alone
                raise StorageRefused(
                    f"SOURCE {self.folder.url} refuses: {plain(error)}. What is finished is kept. Renew the credentials, or get "
                    "access, and run the same command again to go on"
                ) from error
            raise SourceError(f"{where} cannot be read now: {type(error).__name__}: {error}") from error

    def _check_files(self, samples: Sequence[PlannedSample]) -> None:
        for source in dict.fromkeys(one.source for one in samples):
            name = self.relative(source)
            if name in self.planned:
                check_length(source, self.folder.size(name), self.planned[name])

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file in the folder, as listed once: what is planned is what the fingerprint is of."""
        found = self._found or self.folder.listing()
        for why, names in groupby(sorted(found.odd, key=found.odd.__getitem__), found.odd.__getitem__):
            listed = list(names)
            self.left_out[f"files that are {why}"] += len(listed)
            more = f", and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
            _log.warning(f"{self.folder.url}: left out: {', '.join(listed[:_NAMED])}{more}: {why}")
        return found.sizes

    @property
    def label(self) -> str:
        """Names the source in plans and tables: the last part of its path, the same wherever the folder is mounted."""
        return self.folder.basename

    def fingerprint(self) -> str:
        """Equal for equal contents, wherever they lie, of which the same are wanted."""
        wanted = [record] if (record := self.filter.record()) else []
        return hashlib.sha256(canonical_json([self.kind, self.settings.identity(), self.parts(), *wanted])).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a plan keeps of its source; `source_of_plan` turns it back into one."""
        return {
            "kind": self.kind,
            "url": self.folder.url,
            "settings": self.settings.identity(),
            "fingerprint": self.fingerprint(),
            "files": self.files(),
            **({"filter": record} if (record := self.filter.record()) else {}),
        }

    def of_file(self, name: str, size: int | None, key: str, captions: tuple[str, ...], problem: str | None) -> Listed:
        """A picture that is a file of `size` bytes (None: it is not there) as a sample."""
        if size is not None and size > MAX_FILE_BYTES:
            problem = f"too_large: a file of {size} bytes; {MAX_FILE_BYTES} are read at most"
        return Listed(f"{self.label}/{name}", key, 0, -1 if size is None else size, captions, problem)

    def read_files(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        """Bytes of pictures that are files."""
        whole = [Range(self.relative(one.source), 0, -1) for one in samples]
        for one, data in zip(samples, self.folder.read_ranges(whole, MAX_FILE_BYTES + 1), strict=True):
            # An older plan (-1) did not look whether it is there. Without the folder nothing is.
            if one.length >= 0 or (data is None and not self.folder.exists()):
                check_length(one.source, None if data is None else len(data), one.length)
            yield data

    def relative(self, source: str) -> str:
        """A sample's `source`, which begins with the label, as a name in the folder."""
        return source[len(self.label) + 1 :]


def check_length(source: str, found: int | None, planned: int) -> None:
    """SourceError when a file is not there (None), or has not the bytes that it was planned with."""
    if found is None:
        raise SourceError(f"{source} is not there; it was when it was planned")
    if found != planned:
        raise SourceError(f"{source} has {found:,} bytes; it was planned with {planned:,}")
