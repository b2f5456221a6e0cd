"""Frames that are stored of videos are the same bytes, whoever decodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.finetune.data import prepare
from tests.finetune.running import finetune
from tests.making import check, data_digests


def test_the_bytes_are_the_same_for_any_workers_and_on_ray(
    moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_SHARD_SIZE", 10)
    found = []
    for ray, workers in (("off", 0), ("off", 2), ("local", 2)):
        out = tmp_path / f"{ray}-{workers}"
        assert finetune(moving, out, prepare="true", ray=ray, workers=workers, progress="off") == 0
        assert not check(out).problems
        found.append(data_digests(out))
    assert found[0] == found[1] == found[2]
    assert sum(name.endswith(".tar") for name in found[0]) == 4
