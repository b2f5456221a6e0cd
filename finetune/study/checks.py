"""What must hold of a study whatever animating buys: chance where nothing can be known, certainty where all was shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stillreel.configs.study import NONE
from stillreel.finetune.study.figures import EVERY, MOVING, Arm, Study
from stillreel.finetune.study.grid import Cell

_CHANCE = {"pair": 50.0, "group": 25.0}
_NEAR = 90.0  # percent: what was learned by heart


class Checked(NamedTuple):
    """A check, what it expects, what was found, and `holds` or `FAILS`."""

    name: str
    expected: str
    found: str
    verdict: str


def checks_of(study: Study) -> Iterator[Checked]:
    """Of those whose cells are done."""
    if not study.settings.sanity or study.settings.real.benchmark:
        return
    pairs, model = max(study.settings.pairs), study.settings.main.models[0]
    mean, own = Arm(NONE, "mean", pairs), Arm(NONE, model, pairs)
    if Cell(*mean, 0) in study.results:
        for kind in ("object", "camera", "order"):
            outcomes = study.outcomes(mean, [0], kind, "pair", "coarse")
            figure = study.figure(mean, kind, "pair")
            tied = bool(np.all(outcomes == 0.5))
            words = f"{figure.told()}; {'every video ties with its reverse' if tied else 'some do not tie'}"
            holds = tied and figure.low <= _CHANCE["pair"] <= figure.high
            yield _checked(f"mean of frames, {kind}: a video and its reverse", "50, and ties", words, holds=holds)
    if Cell(*own, 0, "shuffled") in study.results:
        for measure, chance in _CHANCE.items():
            figure = study.figure(own, MOVING, measure, check="shuffled")
            holds = figure.low <= chance <= figure.high
            yield _checked(
                f"{model}, trained on shuffled captions: {measure}", f"{chance:g}", figure.told(), holds=holds
            )
    if Cell(*own, 0, "leaked") in study.results:
        outcomes = study.outcomes(own, [0], EVERY, study.measure, check="leaked")[0, : study.settings.world.leaked]
        found = 100 * float(outcomes.mean())
        name = f"{model}, trained on {study.settings.world.leaked} test pairs: these"
        yield _checked(name, f"{_NEAR:g} or more", f"{found:.1f}", holds=found >= _NEAR)
    first, again = (study.results.get(Cell(*own, 0, check)) for check in ("", "again"))
    if first is not None and again is not None:
        equal = first["answers"] == again["answers"]
        yield _checked(f"{model}, run twice", "equal answers", "equal" if equal else "different", holds=equal)


def _checked(name: str, expected: str, found: str, *, holds: bool) -> Checked:
    return Checked(name, expected, found, "holds" if holds else "FAILS")
