"""What all sources are."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from stillreel.configs.build import SourceSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import Listed, PlannedSample

# A larger file is no photograph; it is read up to one byte beyond this, and rejected for its size.
MAX_FILE_BYTES = 256 << 20

PICTURE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm", "heic")


class Source(ABC):
    """Stills with captions in a folder. `left_out` counts, while listing, what the source itself says is no sample."""

    kind: ClassVar[str]

    def __init__(self, folder: Folder, settings: SourceSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.left_out: Counter[str] = Counter()

    @abstractmethod
    def parts(self) -> list[tuple[str, int | str]]:
        """The files that decide what `listing` yields, each with its size or digest, in order."""

    @abstractmethod
    def listing(self) -> Iterator[Listed]:
        """Every sample, in an order that depends on nothing but the source's contents."""

    @abstractmethod
    def read(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        """Bytes of the picture of each planned sample, in order; None where it is not there."""

    @property
    def label(self) -> str:
        """Names the source in plans and tables: the last part of its path, the same wherever the folder is mounted."""
        return self.folder.basename

    def fingerprint(self) -> str:
        """Equal for equal contents, wherever they lie."""
        return hashlib.sha256(canonical_json([self.kind, self.settings.model_dump(), self.parts()])).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a plan keeps of its source; `source_of_plan` turns it back into one."""
        return {
            "kind": self.kind,
            "url": self.folder.url,
            "settings": self.settings.model_dump(),
            "fingerprint": self.fingerprint(),
        }

    def relative(self, source: str) -> str:
        """A sample's `source`, which begins with the label, as a name in the folder."""
        return source[len(self.label) + 1 :]
