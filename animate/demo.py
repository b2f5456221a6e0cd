"""The demo's corpus: pictures drawn by code, animated on a local Ray, verified, and a page that shows the clips.

OUT/stills/     pictures and captions.tsv        OUT/clips/           their clip shards and preview.html
OUT/heldout/    pictures that training never     OUT/clips-heldout/   theirs
                sees, with captions of their own
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

import simplejpeg

from stillreel.animate.commands import animate as build
from stillreel.animate.commands import preview
from stillreel.animate.scenes import caption_of, draw_scene, plan_scene
from stillreel.configs import load_preset
from stillreel.configs.build import AnimateSettings, DemoSettings, PreviewSettings, VerifySettings
from stillreel.configs.system.pool import in_order, process_pool, require_ray
from stillreel.configs.system.progress import Progress
from stillreel.configs.system.storage import Folder
from stillreel.shards.commands import verify

TRAINED_ON, HELD_OUT = "clips", "clips-heldout"

_log = logging.getLogger(__name__)
_BATCH = 25  # pictures that a process draws before it reports
_QUALITY = 90
_NAMES = {"stills": "demo", "heldout": "demo_heldout"}  # of the data sets, and so of their keys: no two share one


def make_clips(out: Path, settings: DemoSettings) -> int:
    """Make the corpus in a folder, or go on making it; returns the exit code of its proof."""
    require_ray(settings.ray)
    heldout, stills = _choose_scenes(settings)
    for name, numbers in (("stills", stills), ("heldout", heldout)):
        _draw(out / name, numbers, settings)
    for name, clips in (("stills", TRAINED_ON), ("heldout", HELD_OUT)):
        if not (out / name).exists():
            continue
        announce(f"animate {name}")
        # A few hundred clips are done before Ray has started.
        ray = settings.ray if name == "stills" else "off"
        build.run(str(out / name), str(out / clips), _animate_settings(settings, _NAMES[name], ray))
        announce(f"verify {clips}")
        code = verify.run(str(out / clips), VerifySettings(progress=settings.progress))
        if code:
            return code
    announce(f"preview {TRAINED_ON}")
    return preview.run(str(out / TRAINED_ON), PreviewSettings(seed=settings.seed))


def announce(what: str) -> None:
    """A heading of the demo's log."""
    _log.info(f"\n== {what}")


def _animate_settings(settings: DemoSettings, name: str, ray: str) -> AnimateSettings:
    values = load_preset("demo", "presets")
    workers = settings.workers if ray != "off" else 0
    return AnimateSettings.resolve(
        {**values, "name": name, "seed": settings.seed, "ray": ray, "workers": workers, "progress": settings.progress}
    )


def _choose_scenes(settings: DemoSettings) -> tuple[list[int], list[int]]:
    """Numbers of the held-out scenes, whose captions no other picture has, and of the others."""
    spoken: set[str] = set()
    heldout: list[int] = []
    stills: list[int] = []
    for number in count():
        if len(heldout) + len(stills) == settings.stills:
            break
        caption = caption_of(plan_scene(settings.seed, number))
        if caption in spoken:
            continue
        if len(heldout) < settings.heldout:
            heldout.append(number)
            spoken.add(caption)
        else:
            stills.append(number)
    return heldout, stills


def _draw(folder: Path, numbers: Sequence[int], settings: DemoSettings) -> None:
    """Draw pictures into a folder; the table of captions is written last, and says that they are all there."""
    table = "".join(
        ["file\tcaption\n", *(f"{_file(number)}\t{_caption(settings.seed, number)}\n" for number in numbers)]
    )
    if not numbers or ((folder / "captions.tsv").is_file() and (folder / "captions.tsv").read_text() == table):
        return
    announce(f"draw {len(numbers):,} pictures into {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    batches = [numbers[at : at + _BATCH] for at in range(0, len(numbers), _BATCH)]
    with Progress(len(numbers), "pictures", settings.progress) as progress, process_pool(settings.workers) as pool:
        for drawn in in_order(pool, partial(_draw_batch, folder, settings.seed), batches):
            progress.advance(drawn)
    Folder(str(folder)).publish("captions.tsv", table.encode())


def _draw_batch(folder: Path, seed: int, numbers: Sequence[int]) -> int:
    for number in numbers:
        picture = draw_scene(plan_scene(seed, number))
        (folder / _file(number)).write_bytes(
            simplejpeg.encode_jpeg(picture, quality=_QUALITY, colorspace="RGB", colorsubsampling="420")
        )
    return len(numbers)


def _file(number: int) -> str:
    return f"{number:06d}.jpg"


def _caption(seed: int, number: int) -> str:
    return caption_of(plan_scene(seed, number))
