"""Other settings: what differs, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.configs import RequestError
from stillreel.pretrain.run.compare import ABSENT, Difference, check_binding, compare_settings

names = st.text("abc", min_size=1, max_size=2)
trees = st.recursive(
    st.integers() | st.text("xy", max_size=2) | st.booleans() | st.none() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
settings = st.dictionaries(names, trees, max_size=4)


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: one for part, inner in value.items() for key, one in leaves(inner, f"{name}.{part}").items()}


@given(settings, settings)
def test_exactly_what_differs_is_said_and_in_order(old: dict[str, Any], new: dict[str, Any]) -> None:
    said = compare_settings(old, new)
    before, after = leaves(old), leaves(new)
    expected = {
        name[1:]
        for name in before.keys() | after.keys()
        if (name in before, before.get(name)) != (name in after, after.get(name))
    }
    assert [one.name for one in said] == sorted(expected)
    assert compare_settings(old, old) == []
    assert [(one.name, one.new, one.old) for one in said] == [tuple(one) for one in compare_settings(new, old)]


def test_a_difference_reads_as_a_user_writes_it() -> None:
    old = {"optimizer": {"lr": 4e-6, "eps": 0.9}, "model": {"pretrained": ""}, "cut": {}}
    new = {"optimizer": {"lr": 1e-5, "eps": 0.9}, "model": {"pretrained": "openai"}, "cut": {"500": {"frames": 16}}}
    assert [str(one) for one in compare_settings(old, new)] == [
        f"cut.500.frames: {ABSENT} -> 16",
        'model.pretrained: "" -> openai',
        "optimizer.lr: 4e-6 -> 1e-5",
    ]


def test_binding_settings_are_refused_with_what_they_were() -> None:
    differences = [Difference("data.seed", "0", "1"), Difference("data.seeds", "0", "1"), Difference("rate", "1", "2")]
    check_binding(differences, {"data.window", "data.see", "model"}, "step-5")
    with pytest.raises(RequestError, match=r"step-5 cannot go on") as refused:
        check_binding(differences, {"data.seed"}, "step-5")
    assert "data.seed was 0, is 1\nSet them as they were" in str(refused.value)
    with pytest.raises(RequestError, match=r"data\.seed was 0, is 1\n  data\.seeds was 0, is 1"):
        check_binding(differences, {"data"}, "step-5")
