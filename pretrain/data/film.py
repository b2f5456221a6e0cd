"""A sample of the stream becomes a clip: frames, or the picture and its windows for the device renderer. A real video's are its
own frames, by the published samplers.

Whose recipe: the shard's own, unless a grammar is asked for, a new one is wanted every epoch, or the tar is not ours and has
none. What is drawn here is a pure function of (seed, source key, grammar) and, with fresh=true, the epoch; of a real video, of
(seed, key, epoch), as in finetuning.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.clips.decode import for_this_renderer, picture_of, salient_point_of, stored_frames
from stillreel.animate.pictures.picture import PictureReader
from stillreel.animate.render.cpu import Renderer
from stillreel.animate.render.device import Still, prepare_still
from stillreel.animate.sources.base import PICTURE_ENDINGS
from stillreel.animate.sources.captions import captions_of
from stillreel.configs import RequestError
from stillreel.configs.build import ClipSettings
from stillreel.configs.grammar import Grammar, load_grammar
from stillreel.configs.looks import Look
from stillreel.configs.stream import DataSettings
from stillreel.configs.system.claims import damage_of
from stillreel.configs.system.dice import Dice
from stillreel.configs.system.memory import PixelMemory
from stillreel.pretrain.video.beside import DrawnBy, Shown, VideoDecoder
from stillreel.pretrain.video.errors import VideoError
from stillreel.shards.format.containers import VIDEO_ENDINGS
from stillreel.shards.stream.stream import Blend, Sample

Pixels = NDArray[np.uint8]

_FOREIGN_GRAMMAR = "film"
_MOST_KEPT = 8 << 20  # bytes of a picture


class View(NamedTuple):
    """What a step wants its clips to be; `grammar` "" is that of the shards."""

    grammar: str
    frames: int
    size: int


def view_at(settings: DataSettings, step: int) -> View:
    """The view of a step: the settings', and what the curriculum has changed by then."""
    view = View(settings.grammar, settings.frames, settings.size)
    for begin, change in sorted(settings.curriculum.items()):
        if begin <= step:
            view = view._replace(**change.model_dump(exclude_none=True))
    return view


class Told(NamedTuple):
    """What is known of a clip beside its frames: the caption, the source's own key of the picture that it shows, and what was
    found of its video, where it is a real one."""

    caption: str
    source: str
    video: Shown | None = None


class Manner(NamedTuple):
    """How recipes are drawn."""

    name: str
    grammar: Grammar
    look: Look | None


class Script(NamedTuple):
    """A recipe, what is told of it, and its picture, to be decoded at 1 / 2^level of its size."""

    recipe: Recipe
    told: Told
    load: Callable[[int], Pixels]


class Filmer:
    """Films samples one after another, in one process. What cannot be filmed is a DataError; a view that the data cannot give,
    a RequestError."""

    def __init__(self, blend: Blend, settings: DataSettings) -> None:
        self._settings = settings
        self._foreign = [corpus.is_foreign for corpus in blend.corpora]
        self._built = [_manners(corpus.plans) for corpus in blend.corpora]
        self._asked: dict[str, Grammar] = {}
        self._renderer = Renderer()
        self._memories: defaultdict[int, PixelMemory] = defaultdict(PixelMemory)
        self._reader = PictureReader(ClipSettings(max_side=0))
        self._videos = VideoDecoder(settings.video)

    def film(self, sample: Sample, slot: int, *, view: View, frames: Pixels) -> Told:
        """Fill row `slot` of `frames` uint8 (B, T, size, size, 3) with a sample's; a real video may have fewer, see `Told`."""
        out = frames[slot]
        if self._is_video(sample):
            return self._show(sample, out)
        if self._foreign[sample.corpus] or "jpg" in sample.members:
            script = self._script(sample, view, slot=0)
            with damage_of(f"sample {sample.key} is no clip"):
                self._renderer.film(script.recipe, script.load, view.frames, view.size, out)
            return script.told
        if view.grammar or self._settings.fresh:
            raise RequestError(
                "the shards hold rendered frames (store=frames or video): no other recipe can film them now"
            )
        with damage_of(f"sample {sample.key} is no clip"):
            stored_frames(sample.members, view.frames, view.size, out)
            described = sample.members["json"]
            return Told(str(described["captions"][described["recipe"]["caption"]]), str(described["source_key"]))

    def prepare(self, sample: Sample, slot: int, *, view: View) -> tuple[Still, Told]:
        """What the device renderer needs of a sample, and what is told of it. The picture lies in memory that is kept for the
        slot: use it before the slot's next one."""
        if self._is_video(sample):
            raise RequestError("render=device needs pictures, and there are videos among the data; use render=loader")
        if not self._foreign[sample.corpus] and "jpg" not in sample.members:
            raise RequestError("render=device needs pictures, and the shards hold rendered frames; use render=loader")
        script = self._script(sample, view, slot)
        if script.recipe.look:
            raise RequestError("render=device cannot change colors, and the recipes have looks; use render=loader")
        with damage_of(f"sample {sample.key} is no clip"):
            still = prepare_still(script.recipe, script.load, view.frames, view.size)
        # A foreign picture lies in the reader's buffer, where the next one will be.
        return (still._replace(picture=still.picture.copy()) if self._foreign[sample.corpus] else still), script.told

    def _script(self, sample: Sample, view: View, slot: int) -> Script:
        with damage_of(f"sample {sample.key} is no clip"):
            if self._foreign[sample.corpus]:
                return self._foreign_script(sample, view)
            described = sample.members["json"]
            recipe = Recipe.from_json(described["recipe"])
            load = picture_of(sample.members["jpg"], recipe)
            if view.grammar or self._settings.fresh:
                manner = self._manner(sample.corpus, view.grammar, recipe.grammar)
                point = salient_point_of(described, recipe.picture)
                recipe = self._draw(
                    sample, manner, described["source_key"], recipe.picture, described["captions"], point
                )
            else:
                recipe = for_this_renderer(recipe)
            # Fresh memory for each picture costs nearly half a decode.
            load = partial(load, buffer=self._buffer(slot, recipe.picture))
            told = Told(described["captions"][recipe.caption], described["source_key"])
            return Script(recipe, told, load)

    def _is_video(self, sample: Sample) -> bool:
        return self._foreign[sample.corpus] and any(map(_is_video, sample.members))

    def _show(self, sample: Sample, out: Pixels) -> Told:
        """Fill `out` (T, size, size, 3) with the frames of a foreign sample's video: as at test where no epoch is read."""
        with damage_of(f"sample {sample.key} is no clip"):
            videos = [ending for ending in sample.members if _is_video(ending)]
            if len(videos) != 1:
                raise ValueError(f"{len(videos)} videos among {', '.join(sample.members)}")
            captions = self._captions(sample)
        caption, drawn_by = captions[0], None
        if sample.epoch is not None:
            drawn_by = DrawnBy(self._settings.seed, f"{sample.key}\0{sample.epoch}")
            caption = captions[int(Dice(*drawn_by).unit("caption") * len(captions))]
        name = f"{sample.key}.{videos[0]}"
        found = self._videos.read(name, sample.members[videos[0]], out, drawn_by)
        if found.total == 1:
            raise VideoError(name, "no_frames", "it has one frame, which is a still; nothing moves in it")
        return Told(caption, name, found)

    def _captions(self, sample: Sample) -> Sequence[str]:
        """Those of a foreign sample; ValueError where it has none."""
        field = self._settings.source.caption
        text, described, named = (sample.members.get(ending) for ending in ("txt", "json", field))
        captions, problem = captions_of(
            None if text is None else text.encode(),
            None if described is None else json.dumps(described).encode(),
            field,
            named.encode() if isinstance(named, str) else None,
        )
        if problem:
            raise ValueError(problem)
        return captions

    def _foreign_script(self, sample: Sample, view: View) -> Script:
        pictures = [ending for ending in sample.members if ending in PICTURE_ENDINGS]
        if len(pictures) != 1:
            raise ValueError(f"{len(pictures)} pictures among {', '.join(sample.members)}")
        captions = self._captions(sample)
        picture = self._reader.read(sample.members[pictures[0]])
        manner = self._manner(sample.corpus, view.grammar or _FOREIGN_GRAMMAR, "")
        recipe = self._draw(sample, manner, sample.key, picture.size, captions)
        return Script(recipe, Told(captions[recipe.caption], sample.key), picture.pixels)

    def _buffer(self, slot: int, picture: tuple[int, int]) -> Pixels | None:
        """Memory for a picture (width, height) that is kept for the slot; None for a huge one."""
        width, height = picture
        return self._memories[slot].shaped(height, width) if 3 * width * height <= _MOST_KEPT else None

    def _draw(
        self,
        sample: Sample,
        manner: Manner,
        source_key: str,
        size: tuple[int, int],
        captions: Any,
        point: tuple[int, int] | None = None,
    ) -> Recipe:
        drawn_by = f"{source_key}\0{sample.epoch or 0}" if self._settings.fresh else source_key
        return draw_recipe(
            manner.name, manner.grammar, manner.look, self._settings.seed, drawn_by, size, captions, point
        ).recipe

    def _manner(self, corpus: int, asked: str, stored: str) -> Manner:
        """The grammar that is asked for, or else the one that a stored recipe was drawn by; the look is the build's."""
        built = self._built[corpus]
        if not asked:
            return built[stored]
        if asked not in self._asked:
            self._asked[asked] = load_grammar(asked)
        look = next((manner.look for manner in built.values()), None)
        return Manner(_grammar_name(asked), self._asked[asked], look)


def _manners(plans: tuple[dict[str, Any], ...]) -> dict[str, Manner]:
    """By the name that recipes carry, how the builds of a data set drew them."""
    manners: dict[str, Manner] = {}
    for plan in plans:
        name, look = _grammar_name(plan["settings"]["grammar"]), plan["presets"]["look"]
        manners[name] = Manner(name, Grammar.resolve(plan["presets"]["grammar"]), Look.resolve(look) if look else None)
    return manners


def _is_video(ending: str) -> bool:
    last = ending.rpartition(".")[2]
    return last in VIDEO_ENDINGS and last not in PICTURE_ENDINGS


def _grammar_name(preset: str) -> str:
    return preset.rsplit("/", 1)[-1].removesuffix(".yaml")
