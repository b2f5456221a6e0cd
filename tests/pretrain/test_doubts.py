"""What cannot come to much is said before the first step: by any command that trains, and by a dry run."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from stillreel.configs.train import TrainSettings
from stillreel.pretrain.engine.doubts import doubts_of, new_modules, of_untrained
from tests.pretrain.zoo import tiny


def settings(**values: Any) -> TrainSettings:
    """Dots of names are written as two underscores."""
    nested: dict[str, Any] = {"out": "x", "batch": 10, "model": {"towers": {"pretrained": "openai"}}}
    for name, value in values.items():
        *groups, last = name.split("__")
        reduce(lambda where, group: where.setdefault(group, {}), groups, nested)[last] = value
    return TrainSettings.resolve(nested)


def said(samples: int = 1000, kind: str = "mean", **values: Any) -> str:
    return "\n".join(doubts_of(settings(**values), samples, tiny(kind)))


def test_a_run_that_can_learn_has_no_doubts() -> None:
    for kind in ("mean", "seq", "rerank"):
        assert said(kind=kind) == ""
    assert said(kind="seq", optimizer__lr=0) == "", "frozen towers below a head that is trained"
    assert said(optimizer__lr_new=0) == "", "nothing new is there to be trained"
    assert said(steps=10) == "" and said(optimizer__warmup_steps=99) == "", "the warm-up ends within the run"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer__warmup_steps": 1000}, "the warm-up of 1,000 steps is not over when the run of 100 steps ends, at 10%"),
        ({"optimizer__warmup_ratio": 1}, "the warm-up of 100 steps is not over when the run of 100 steps ends"),
        ({"samples": 9}, "9 pairs are fewer than batch=10"),
        ({"batch": 1}, "batch=1 has nothing to tell a clip from"),
        ({"optimizer__lr": 0}, "leave nothing of the model to train"),
        ({"optimizer__lr": 0, "optimizer__lr_new": 0, "kind": "seq"}, "leave nothing of the model to train"),
        ({"optimizer__lr_new": 0, "kind": "seq"}, "optimizer.lr_new=0 leaves temporal as they begin: untrained"),
        (
            {"optimizer__lr": 0, "kind": "seq", "model__towers__pretrained": "", "model__towers__name": "tiny"},
            "freezes towers whose weights are random",
        ),
        ({"wise_ft_alpha": 0}, "nothing that is learned is kept"),
        ({"ema__decay": 0.9999, "ema__warmup": False}, "keeps 99% of the start in the averaged weights after 100 steps"),
    ],
)  # fmt: skip
def test_what_cannot_come_to_much_is_said(values: dict[str, Any], words: str) -> None:
    assert words in said(**values)


def test_a_head_without_training_is_said_where_it_is_evaluated() -> None:
    assert not list(of_untrained(tiny("mean")))
    assert new_modules(tiny("seq")) == ("temporal",)
    (doubt,) = of_untrained(tiny("seq"))
    assert "temporal begin untrained, and are evaluated so" in doubt
