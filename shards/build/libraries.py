"""Versions of the libraries that bytes and figures depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import stillreel
from stillreel.configs import RequestError

_version = cache(version)  # of what this process has imported; asked for at every shard, and slow to find


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those that are installed. That of stillreel is of the code that runs: a checkout has no other."""
    versions = {}
    for name in names:
        try:
            versions[name] = stillreel.__version__ if name == "stillreel" else _version(name)
        except PackageNotFoundError:
            continue
    return versions


def check_libraries(planned: Mapping[str, str]) -> None:
    """RequestError when a library here has another version than was planned with: its bytes could differ."""
    if other := other_versions(planned):
        raise RequestError(
            f"{platform.node()} has other library versions than the plan: {other}. Install those, or use another OUT"
        )


def other_versions(planned: Mapping[str, str]) -> str:
    """Libraries that have another version here than was planned with, in words; empty where none has."""
    here = library_versions(planned)
    return "; ".join(
        f"{name} {here.get(name, 'not installed')}, planned {wanted}"
        for name, wanted in planned.items()
        if here.get(name) != wanted
    )
