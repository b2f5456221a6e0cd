"""How far a reader has to go who follows a batch (tests/way.py says what is counted), and what a search does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.making import ROOT
from tests.way import way_of_a_batch, way_of_the_loop

READERS = ("activitynet", "didemo", "folder", "hmdb", "kinetics", "lsmdc", "msrvtt", "msvd", "ssv2", "vatex", "open")


def test_a_batch_passes_few_files_and_seldom_comes_back(tmp_path: Path) -> None:
    reading = way_of_a_batch(tmp_path / "reading")
    assert len(reading.files) <= 54 and reading.returns < 570
    loop = way_of_the_loop(tmp_path / "loop")
    assert len(loop.files) <= 29 and loop.returns < 50


def test_a_search_loads_no_benchmark_and_no_sweep() -> None:
    code = "import sys, stillreel.finetune.commands.search\nprint(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(said.stdout.split())
    assert "stillreel.finetune.search.searcher" in loaded
    never = {f"stillreel.finetune.benchmarks.{name}" for name in READERS}
    assert not loaded & {*never, "stillreel.pretrain.evaluation.two_stage.sweep", "stillreel.finetune.benchmarks"}
