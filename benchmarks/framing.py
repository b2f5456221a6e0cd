"""Whether clips see what their pictures are about, and what it costs to look for it.

    python -m benchmarks.framing PICTURES [scenes=1000] [copies=4]

Seen: drawn scenes, whose things are known. Of the largest thing's area, the share that a clip's frames see: the mean over its
twelve frames; of these the median, the mean, and the mean of the worst tenth of clips. `none` and `salient` as aim= has them;
`known` aims at the thing's own middle, which is what the grammar's freedom allows; `jump` are independent random crops.
Cost: CPU time of finding the point in the folder's pictures, beside that of making the whole sample of store=recipe, and beside
that of building a data set of them, each `copies` times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import begin
from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.camera.windows import windows
from stillreel.animate.clips.clip import ClipMaker, Stage
from stillreel.animate.commands import animate
from stillreel.animate.pictures.picture import PictureReader
from stillreel.animate.pictures.saliency import salient_point
from stillreel.animate.scenes import Scene, Thing, caption_of, draw_scene, mask_of, plan_scene
from stillreel.configs.build import AnimateSettings, ClipSettings
from stillreel.configs.grammar import load_grammar
from stillreel.shards.format.plan import PlannedSample

_FRAMES = 12
_POINTS = 400  # of a thing, by which its area is measured
_GRAMMARS = {name: load_grammar(name) for name in ("film", "film-1shot", "still", "zoom", "pan", "jump")}
Aim = Callable[[Scene, Thing, NDArray[np.uint8]], tuple[int, int] | None]
_AIMS: dict[str, Aim] = {
    "none": lambda scene, thing, pixels: None,
    "salient": lambda scene, thing, pixels: salient_point(pixels),
    "known": lambda scene, thing, pixels: (int(thing.x * scene.width), int(thing.y * scene.height)),
}


def main(words: list[str]) -> None:
    folder, numbers, _ = begin(words, scenes=1000, copies=4)
    report_seen(numbers["scenes"])
    report_cost([path.read_bytes() for path in sorted(folder.rglob("*.jpg"))])
    report_builds(folder, numbers["copies"])


def report_seen(count: int) -> None:
    seen: dict[tuple[str, str], list[float]] = {}
    shots: dict[tuple[str, str], int] = {}
    for number in range(count):
        scene = plan_scene(1, number)
        masks = {thing: mask_of(thing, scene) for thing in scene.things}
        thing = max(masks, key=lambda one: masks[one].sum())
        points, pixels = points_of(masks[thing]), draw_scene(scene)
        size, captions = (scene.width, scene.height), [caption_of(scene)]
        for aim, find in _AIMS.items():
            point = find(scene, thing, pixels)
            for name, grammar in _GRAMMARS.items():
                if name == "jump" and point:
                    continue
                recipe = draw_recipe(name, grammar, None, 0, str(number), size, captions, point).recipe
                seen.setdefault((name, aim), []).append(share_seen(recipe, points))
                shots[name, aim] = shots.get((name, aim), 0) + len(recipe.moves)
    print(f"share of the largest thing's area that a frame sees, of {count:,} drawn scenes\n")
    print(f"{'grammar':12}{'aim':10}{'median':>8}{'mean':>8}{'worst tenth':>13}{'shots':>8}")
    for (name, aim), shares in sorted(seen.items(), key=lambda row: tuple(_GRAMMARS).index(row[0][0])):
        worst = np.sort(shares)[: max(1, count // 10)].mean()
        print(
            f"{name:12}{aim:10}{np.median(shares):8.1%}{np.mean(shares):8.1%}{worst:13.1%}{shots[name, aim] / count:8.2f}",
            flush=True,
        )


def points_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Points (3, n), homogeneous on the unit square, spread evenly over where a mask is true."""
    rows, columns = np.nonzero(mask)
    step = max(1, len(rows) // _POINTS)
    height, width = mask.shape
    return np.stack([(columns[::step] + 0.5) / width, (rows[::step] + 0.5) / height, np.ones(len(rows[::step]))])


def share_seen(recipe: Recipe, points: NDArray[np.float64]) -> float:
    """Mean over the frames of a clip of the share of the points that it sees; of a dissolve by weight."""
    matrices, weights = windows(recipe, _FRAMES)
    back = np.linalg.inv(matrices) @ points
    found = back[..., :2, :] / back[..., 2:, :]
    inside = ((found >= 0) & (found <= 1)).all(axis=-2).mean(axis=-1)  # (T, 2)
    return float(((1 - weights) * inside[:, 0] + weights * inside[:, 1]).mean())


def report_cost(files: list[bytes]) -> None:
    """CPU time of finding the point, as it comes after the hash of a decoded picture, beside that of making the whole sample."""
    maker, reader = ClipMaker(Stage.of_settings(ClipSettings())), PictureReader(ClipSettings())
    made, found, count = [], [], 0
    for turn in range(6):
        spent_making = spent_finding = 0.0
        for number, data in enumerate(files):
            planned = PlannedSample(f"a_{number:09d}", "a", str(number), 0, number, 0, 0, ("a picture",), None)
            start = time.thread_time()
            sample = maker.make(planned, data)
            spent = time.thread_time() - start
            if not sample.members:
                continue
            picture = reader.read(data)
            picture.perceptual_hash()
            start = time.thread_time()
            picture.salient_point()
            spent_finding += time.thread_time() - start
            spent_making += spent
            count += not turn
        made.append(spent_making)
        found.append(spent_finding)
    # The least of several: a busy machine only adds.
    print(
        f"\nthe point: {1e6 * min(found) / count:.0f} of {1e6 * min(made) / count:.0f} us of making a sample of store=recipe, "
        f"{min(found) / min(made):.1%}, of {count} pictures",
        flush=True,
    )


def report_builds(folder: Path, copies: int) -> None:
    """CPU time of whole builds of the folder's pictures, in this process."""
    with tempfile.TemporaryDirectory() as home:
        source = Path(home, "pictures")
        source.mkdir()
        rows = ["file\tcaption"]
        for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
            for copy in range(copies):
                (source / f"{number:05d}_{copy}.jpg").symlink_to(path.resolve())
                rows.append(f"{number:05d}_{copy}.jpg\ta picture")
        (source / "captions.tsv").write_text("\n".join(rows) + "\n")
        spent: dict[str, list[float]] = {"none": [], "salient": []}
        for turn in range(3):
            for aim, times in spent.items():
                start = time.process_time()
                settings = AnimateSettings.resolve({"ray": "inline", "aim": aim, "progress": "off", "max_rejects": 1})
                animate.run(str(source), f"{home}/{aim}{turn}", settings)
                times.append(time.process_time() - start)
        none, salient = min(spent["none"]), min(spent["salient"])
        print(
            f"a build of {len(rows) - 1:,} pictures: {none:.2f} s of CPU with aim=none, {salient:.2f} s with aim=salient, "
            f"{salient / none - 1:+.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
