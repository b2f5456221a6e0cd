"""The script of a GPU day, small and on the CPU: that all of its parts run, not what they measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu_pretrain import main
from tests.making import jpeg


@pytest.mark.slow
def test_it_tells_of_every_part(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number, 120, 90))
    small = "device=cpu size=tiny compile=off rounds=1 steps=1 warmup=1 workers=1 stream_seconds=1"
    main([str(tmp_path), *small.split()])
    said = capfd.readouterr().out
    assert "agrees with the CPU's on 6 clips" in said
    for part in ("eager", "open_clip", "rendering", "stream", "loader"):
        assert f"  {part} " in said
    assert "beside open_clip: eager" in said


def test_unknown_words_are_refused() -> None:
    with pytest.raises(SystemExit, match="unknown: speed;"):
        main(["device=cpu", "speed=9"])
