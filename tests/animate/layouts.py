"""Small corpora in their layouts, and what a source makes of them."""

from __future__ import annotations

from pathlib import Path

from stillreel.animate.sources import Source, open_source
from stillreel.configs.build import SourceSettings
from tests.making import jpeg

Spoken = dict[str, tuple[str, ...]]


def opened(path: Path, **settings: str) -> tuple[Source, Spoken, dict[str, str]]:
    """A source; captions by key of the samples that are sound; and what is wrong with the others."""
    source = open_source(str(path), SourceSettings(**settings))
    listed = list(source.listing())
    sound = {one.source_key: one.captions for one in listed if one.problem is None}
    return source, sound, {one.source_key: one.problem for one in listed if one.problem is not None}


def stills(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))
    return folder


def link(target: Path, name: Path) -> None:
    name.symlink_to(target)
