"""`stillreel animate ... dry_run=true`: what a build comes to, before it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillreel.animate.clips import forecast as forecasts
from stillreel.animate.clips.clip import Stage
from stillreel.animate.clips.forecast import STORES, forecast
from stillreel.animate.sources import open_source
from stillreel.configs import RequestError
from stillreel.configs.build import ClipSettings, SourceSettings
from tests.making import animate, jpeg, stillreel, write_tar


def test_figures_are_those_of_the_builds(stills: Path, built: dict[str, Path]) -> None:
    """All of the 25 pictures are probed, so every store's bytes are known but for the ends of tars and tables."""
    settings = ClipSettings(frames=5, size=64)
    found = forecast(open_source(str(stills), SourceSettings()), Stage.of_settings(settings), "stills")
    assert (found.samples, found.probed, found.unusable, found.rejected) == (25, 25, {}, {})
    assert found.source_bytes == sum(path.stat().st_size for path in stills.glob("*.jpg"))
    for store in STORES:
        said = sum(path.stat().st_size for path in built[store].glob("shards/*.tar"))
        assert said - 3 * 12_000 < found.costs[store].bytes < said + 25 * 200, store
        assert found.costs[store].seconds > 0


def test_a_hundred_of_many_speak_for_all(tmp_path: Path) -> None:
    data = jpeg(1)
    members = [(f"{n:04d}.{e}", d) for n in range(600) for e, d in (("jpg", data), ("txt", b"a dog" if n % 6 else b""))]
    write_tar(tmp_path / "tars" / "00000.tar", members)
    found = forecast(open_source(str(tmp_path / "tars"), SourceSettings()), Stage.of_settings(ClipSettings()), "tars")
    assert (found.samples, found.unusable, found.probed) == (600, {"no_caption": 100}, 100)
    assert found.source_bytes == pytest.approx(500 * len(data))


def test_it_writes_nothing_and_says_by_store(stills: Path, tmp_path: Path) -> None:
    said = stillreel("animate", stills, tmp_path / "out", "dry_run=true", "frames=5", "size=64", "store=frames")
    assert said.returncode == 0, said.stderr
    assert "25 samples" in said.stdout and "none rejected" in said.stdout
    assert re.search(r"frames +[0-9.]+ [kM]?B .*<- store", said.stdout)
    assert not (tmp_path / "out").exists()


def test_what_is_finished_does_not_count(stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert animate(stills, tmp_path / "out", shard_size=10) == 0
    (tmp_path / "out" / "shards" / "stills-000002.json").unlink()
    capsys.readouterr()
    assert animate(stills, tmp_path / "out", shard_size=10, dry_run=True) == 0
    assert "20 samples are finished" in capsys.readouterr().out


def test_a_build_that_cannot_fit_is_refused(
    stills: Path, built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {store: sum(path.stat().st_size for path in home.glob("shards/*.tar")) for store, home in built.items()}
    assert size["recipe"] < size["frames"], "of pictures this small"
    monkeypatch.setattr(
        forecasts.shutil, "disk_usage", lambda _: SimpleNamespace(free=(size["recipe"] + size["frames"]) // 2)
    )
    with pytest.raises(RequestError, match=r"it cannot fit: store=frames needs about .*; store=recipe \(.*would fit"):
        animate(stills, tmp_path / "out", store="frames", frames=5, size=64, dry_run=True)
    assert animate(stills, tmp_path / "out", store="recipe", frames=5, size=64, dry_run=True) == 0
