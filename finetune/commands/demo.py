"""`stillreel demo`: the whole tool on pictures drawn by code: draw, animate, verify, preview, pretrain, finetune, study, report.

OUT/stills/, heldout/         pictures and captions.tsv; held-out captions are their own
OUT/clips/, clips-heldout/    their clip shards, and preview.html
OUT/pretrain/                 a tiny model's run on them
OUT/moving/                   a benchmark of videos of one thing that moves
OUT/finetune/                 the model's run on it, and results.json
OUT/study/                    what animating buys, asked of too few to decide it
OUT/report.html               what became of all

Run again it goes on where it was, at any stage. Without torch it ends with the clips and their page.
"""

from __future__ import annotations

import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from stillreel.animate.demo import HELD_OUT, TRAINED_ON, announce, make_clips
from stillreel.configs import load_preset
from stillreel.configs.build import DemoSettings
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.study import StudySettings
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.progress import duration

_PRESET = "demo"
_BENCHMARK = "moving"
_TRAINING_NEEDS = ("torch", "open_clip", "safetensors")


def run(settings: DemoSettings) -> int:
    """Make the demo, or go on making it; returns the exit code."""
    start = time.monotonic()
    out = Path(settings.out).expanduser().resolve()
    with stoppable("what is finished is kept. Run the same command again to go on"):
        code = make_clips(out, settings)
        if code:
            return code
        missing = [name for name in _TRAINING_NEEDS if find_spec(name) is None]
        if missing:
            print(f'\nno training: {", ".join(missing)} not installed: pip install "stillreel[train]"')
            page = out / TRAINED_ON / "preview.html"
        else:
            page = _train(out, settings)
    print(f"\ndone in {duration(time.monotonic() - start)}. Open this page: {page.as_uri()}")
    return 0


def _train(out: Path, settings: DemoSettings) -> Path:
    """Pretrain on the clips, finetune on the benchmark and report; returns the report."""
    from stillreel.finetune.commands import finetune
    from stillreel.finetune.commands.report import write_report
    from stillreel.finetune.moving import CONTENTS, draw_benchmark
    from stillreel.pretrain.commands import pretrain

    values = pretrain_settings(out, settings)
    announce(f"pretrain {values.steps:,} steps on {TRAINED_ON}")
    pretrain.run(_PRESET, values)
    announce(f"draw {_BENCHMARK}")
    contents = {**CONTENTS, "train": settings.contents}
    draw_benchmark(out / _BENCHMARK, seed=settings.seed, contents=contents, workers=settings.workers)
    tuned = finetune_settings(out, settings)
    announce(f"finetune {tuned.steps:,} steps on {_BENCHMARK}")
    finetune.run("folder", tuned)
    more = [_study(settings, out)] if settings.study else []
    announce("report")
    page = out / "report.html"
    write_report([Path(values.out)], page, tested=[Path(tuned.out)], more=more)
    return page


def _study(settings: DemoSettings, out: Path) -> str:
    """Make the study at its smallest; its section of the report."""
    from stillreel.finetune.study.report import REPORT, brief_section, write_report
    from stillreel.finetune.study.run import run_study

    asked = study_settings(out, settings)
    place = Path(asked.out)
    announce("study: what does animating buy?")
    run_study(asked, place)
    write_report(_PRESET, asked, place)
    return brief_section(asked, place, f"{place.name}/{REPORT}")


def pretrain_settings(out: Path, settings: DemoSettings) -> PretrainSettings:
    """The preset, on the demo's clips. With other steps than the preset's, what it counts in steps keeps its share of them; a
    batch holds no more clips than there are."""
    preset = PretrainSettings.resolve(load_preset(_PRESET, "pretrain"))
    steps = settings.steps or preset.steps
    scaled = partial(_scaled, share=steps / preset.steps)

    values = preset.model_dump()
    values["data"], values["out"], values["steps"] = str(out / TRAINED_ON), str(out / "pretrain"), steps
    values["batch"] = min(preset.batch, settings.stills - settings.heldout)
    values["seed"] = settings.seed
    values["optimizer"]["warmup_steps"] = scaled(preset.optimizer.warmup(preset.steps))
    values["eval"]["data"] = str(out / HELD_OUT) if settings.heldout else ""
    values["eval"]["every"] = scaled(preset.eval.every)
    values["save_every"] = scaled(preset.save_every)
    values["log_every"] = scaled(preset.log_every)
    values["progress"] = settings.progress
    return PretrainSettings.resolve(values)


def finetune_settings(out: Path, settings: DemoSettings) -> FinetuneSettings:
    """The preset, on the drawn benchmark, from the pretrained model; of its steps, the share that is pretrained."""
    preset, share = FinetuneSettings.resolve(load_preset(_PRESET, "finetune")), _share(settings)
    values = preset.model_dump()
    values["data"], values["out"], values["init"] = str(out / _BENCHMARK), str(out / "finetune"), str(out / "pretrain")
    values["steps"] = _scaled(preset.steps, share)
    values["seed"] = settings.seed
    values["batch"] = min(preset.batch, settings.contents)
    values["optimizer"]["warmup_steps"] = _scaled(preset.optimizer.warmup(preset.steps), share)
    values["save_every"] = _scaled(preset.save_every, share)
    values["log_every"] = _scaled(preset.log_every, share)
    values["progress"] = settings.progress
    return FinetuneSettings.resolve(values)


def study_settings(out: Path, settings: DemoSettings) -> StudySettings:
    """The preset; of its steps, the share that is pretrained."""
    values, share = StudySettings.resolve(load_preset(_PRESET, "study")).model_dump(), _share(settings)
    values["out"], values["progress"] = str(out / "study"), settings.progress
    values["workers"] = settings.workers or values["workers"]
    for stage in ("image", "pretrain", "finetune"):
        values[stage]["steps"] = _scaled(values[stage]["steps"], share)
    return StudySettings.resolve(values)


def _share(settings: DemoSettings) -> float:
    """Of the preset's steps of pretraining, how many are asked for."""
    whole = PretrainSettings.resolve(load_preset(_PRESET, "pretrain")).steps
    return settings.steps / whole if settings.steps else 1.0


def _scaled(count: int, share: float) -> int:
    return max(1, round(count * share))
