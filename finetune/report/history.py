"""What a run's folder tells of it: run.json and metrics.jsonl, of a run that is finished, stopped or under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillreel.configs import RequestError
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.finetune.report.chart import Point
from stillreel.pretrain.run.compare import Difference, compare_settings
from stillreel.pretrain.run.folder import FINAL, RUN
from stillreel.pretrain.run.metrics import METRICS

Metrics = Mapping[str, float | None]

_OF_READING = "loss"  # a line of metrics.jsonl that has it is a reading of the meter; others are evaluations


@dataclass(frozen=True)
class History:
    """A run so far."""

    run: Path
    settings: Mapping[str, Any]  # nested, as resolved
    digest: str
    libraries: Mapping[str, str]
    readings: tuple[Metrics, ...]
    evaluations: tuple[Metrics, ...]

    @property
    def steps(self) -> int:
        """Steps that are told of."""
        return int(max((line["step"] or 0 for line in (*self.readings, *self.evaluations)), default=0))

    @property
    def is_finished(self) -> bool:
        return (self.run / FINAL).is_dir()

    @property
    def is_finetuning(self) -> bool:
        """Of a benchmark's videos, not of a stream of clips."""
        return "lanes" not in self.settings

    @property
    def stage(self) -> str:
        """The run's kind, as a heading."""
        return "Finetuning" if self.is_finetuning else "Pretraining"

    def curve(self, name: str) -> list[Point]:
        """(step, value) wherever a finite value was told, of readings or of evaluations."""
        lines = self.readings if name in _names(self.readings) else self.evaluations
        return [
            (step, value)
            for line in lines
            if (step := line["step"]) is not None and (value := line.get(name)) is not None
        ]

    def parts(self) -> list[str]:
        """The objectives that make up the loss."""
        return sorted(name for name in _names(self.readings) if name.startswith("loss."))

    def differences(self) -> list[Difference]:
        """Settings that are not the defaults; where they lie (data, out) included, for they have none."""
        defaults = FinetuneSettings(out="") if self.is_finetuning else PretrainSettings(data="", out="")
        return compare_settings(defaults.model_dump(mode="json"), self.settings)

    def seconds(self) -> float:
        """Spent in steps: without evaluating, saving and starting."""
        spent, clips = 0.0, 0.0
        for line in self.readings:
            consumed, rate = line.get("clips") or clips, line.get("clips_per_s")
            spent += (consumed - clips) / rate if rate else 0.0
            clips = consumed
        return spent


def read_history(run: Path) -> History:
    """RequestError when `run` is no run's folder, DataError when its run.json is not sound."""
    if not (run / RUN).is_file():
        raise RequestError(f"RUN {run}: no run of training (it has no {RUN}); expected OUT of `stillreel pretrain`")
    with damage_of(f"{run / RUN} is not what a run writes"):
        told = parse_json((run / RUN).read_bytes())
        settings, digest, libraries = dict(told["settings"]), str(told["settings_digest"]), dict(told["libraries"])
    lines = _lines_of(run / METRICS)
    return History(
        run=run,
        settings=settings,
        digest=digest,
        libraries=libraries,
        readings=tuple(line for line in lines if _OF_READING in line),
        evaluations=tuple(line for line in lines if _OF_READING not in line),
    )


def _lines_of(path: Path) -> list[Metrics]:
    """Whole lines, in the order of their steps; of a run that is under way the last may be half written."""
    text = path.read_bytes() if path.is_file() else b""
    lines = []
    for line in text.splitlines():
        try:
            told = parse_json(line)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("step"), int):
            lines.append(
                {name: value for name, value in told.items() if value is None or isinstance(value, int | float)}
            )
    return sorted(lines, key=lambda line: line["step"] or 0)


def _names(lines: tuple[Metrics, ...]) -> set[str]:
    return {name for line in lines for name in line}
