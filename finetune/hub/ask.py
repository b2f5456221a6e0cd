"""How the hub is named and asked: `me/model` is a model, `datasets/me/clips` a data set; what it refuses is one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from stillreel.configs import RequestError, StillreelError

Kind = Literal["model", "dataset"]
_DATASETS = "datasets/"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Repository(NamedTuple):
    """A repository of the hub."""

    name: str
    kind: Kind

    def __str__(self) -> str:
        """As `pull` reads it."""
        return self.name if self.kind == "model" else _DATASETS + self.name


def repository(text: str) -> Repository:
    """RequestError for what is no name of one."""
    name = text.removeprefix("hf://").removeprefix(_DATASETS)
    if not _NAME.fullmatch(name):
        raise RequestError(f"REPO {text}: expected OWNER/NAME of a model, or datasets/OWNER/NAME")
    return Repository(name, "model" if name == text.removeprefix("hf://") else "dataset")


@contextmanager
def asking(what: Repository) -> Iterator[None]:
    """Within it the hub is asked for a repository: what it, or the way to it, refuses becomes RequestError."""
    try:
        yield
    except (StillreelError, MemoryError):
        raise
    except Exception as error:  # of a network, in as many ways as its libraries have
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = str(error).strip().splitlines() or [type(error).__name__]
        token = "; is HF_TOKEN that of its owner, or of somebody who may?" if status in (401, 403, 404) else ""
        raise RequestError(
            f"REPO {what}: the hub says: {why[0].rstrip('.')}{token or '. Run the same command again to go on'}"
        ) from error
