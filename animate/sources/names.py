"""The file that a table means by a name, among those that are there."""

from __future__ import annotations

import difflib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property

from stillreel.configs.system.storage import Folder

_SEARCHED = 20_000  # names that a nearest one is looked for among


class Names:
    """Files of a folder by what tables call them. `base` is where the table lies, whose own folder comes first."""

    def __init__(self, folder: Folder, sizes: Mapping[str, int], base: str) -> None:
        self._folder = folder
        self._sizes = sizes
        self._base = base
        self.otherwise: Counter[str] = Counter()  # how names were meant that are not those of files, letter by letter
        self._nearest_left = 20

    def find(self, given: str) -> tuple[str, str]:
        """The name of the file, and why it is none that can be read (`reason: detail`), or empty."""
        spelled = given.encode("utf-8", "backslashreplace").decode()
        if spelled != given:
            return spelled, f"missing: the name {spelled!r} is not UTF-8"
        if "://" in given or not given:
            return given, f"missing: {given!r} is no path within the source's folder"
        paths = [given, given.replace("\\", "/")] if "\\" in given else [given]
        names = [name for path in paths for name in within(self._folder, path, self._base)]
        if not names:
            return given, f"missing: {given!r} is no path within the source's folder"
        for name in names:
            if self.size(name) is not None:
                return name, ""
        for alike, found, how in (
            (_composed, self._by_composed, "in another Unicode form"),
            (_folded, self._by_folded, "in other case"),
        ):
            for name in names:
                meant = found.get(alike(name), [])
                if len(meant) == 1:
                    self.otherwise[how] += 1
                    return meant[0], ""
        return names[0], f"missing: {self._folder.basename}/{names[0]} is not there{self._nearest(names[0])}"

    def size(self, name: str) -> int | None:
        """Bytes of a file; no listing shows hidden ones."""
        hidden = name.startswith(".") or "/." in name
        return self._folder.size(name) if hidden else self._sizes.get(name)

    def _nearest(self, name: str) -> str:
        if self._nearest_left <= 0 or len(self._sizes) > _SEARCHED:
            return ""
        self._nearest_left -= 1
        near = difflib.get_close_matches(name, self._sizes, 3, 0.75)
        # Names that differ in their numbers alone are of other pictures.
        meant = [other for other in near if re.sub(r"\d", "0", other) != re.sub(r"\d", "0", name)]
        return f"; the nearest name is {meant[0]}" if meant else ""

    @cached_property
    def _by_composed(self) -> dict[str, list[str]]:
        return _grouped(self._sizes, _composed)

    @cached_property
    def _by_folded(self) -> dict[str, list[str]]:
        return _grouped(self._sizes, _folded)


def within(folder: Folder, path: str, base: str) -> list[str]:
    """Names in the folder that a path may stand for, from `base` in it or from itself; absolute ones if they lead into it."""
    if path.startswith("/") or re.match("[A-Za-z]:[/\\\\]", path):
        start = f"{folder.path}/"
        return [posixpath.normpath(path[len(start) :])] if path.startswith(start) else []
    names = [posixpath.normpath(posixpath.join(base, path)) for base in dict.fromkeys((base, ""))]
    return [name for name in names if not name.startswith("..") and name != "."]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold()


def _grouped(names: Mapping[str, int], alike: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(alike(name), []).append(name)
    return groups
