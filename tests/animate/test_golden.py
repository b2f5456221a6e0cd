"""DATA BYTES. These digests pin what is drawn and what is rendered. A change that breaks one changes every data set that
is built after it: it says so in its commit, and raises RECIPE_VERSION or RENDERER_VERSION."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from animate.draw import draw_recipe
from animate.render import Renderer
from configs.grammar import load_grammar
from configs.looks import load_look

PICTURES = ((640, 480), (300, 400), (512, 512), (1000, 220))
DRAWN = {
    "film": "83537725fa0bffdb",
    "film-1shot": "97116506c7581ccc",
    "still": "d9641d2ccf39eefe",
    "jump": "16dba93fbd30bbba",
    "zoom": "ccaf6af6bbdbd9a8",
    "pan": "ebe7ab03a414a1b0",
    "nested": "cde64107807a3a15",
}
RENDERED = {"film": "f2ea6e55e553a491", "jump": "0638587ead6e33fe", "nested": "77502fca5c98bfe7"}


def pattern(width: int, height: int) -> NDArray[np.uint8]:
    """A picture made of integers alone: no library's drawing enters the golden bytes."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 7 + y * 3) % 256, (x * y // 37) % 256, ((x // 9 + y // 13) % 2) * 200 + 20], axis=-1).astype(
        np.uint8
    )


@pytest.mark.parametrize("grammar", DRAWN)
def test_drawing_is_pinned(grammar: str) -> None:
    looks = (None, load_look("drifting"))
    recipes = [
        draw_recipe(
            grammar,
            load_grammar(grammar),
            looks[number % 2],
            number % 3,
            f"key {number}",
            PICTURES[number % 4],
            ("a", "b"),
        ).recipe
        for number in range(100)
    ]
    text = json.dumps([recipe.to_json() for recipe in recipes], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DRAWN[grammar]


@pytest.mark.parametrize("grammar", RENDERED)
def test_rendering_is_pinned(grammar: str) -> None:
    renderer = Renderer()
    digest = hashlib.sha256()
    for number in range(24):
        size = PICTURES[number % 4]
        recipe = draw_recipe(grammar, load_grammar(grammar), None, 0, f"key {number}", size, ("a",)).recipe
        digest.update(renderer.render(recipe, pattern(*size), 6, 96 + 32 * (number % 2)).tobytes())
    assert digest.hexdigest()[:16] == RENDERED[grammar]
