"""One still becomes one sample: read, draw, film, encode; and the planned ones of a shard become the shard.

All stores go the same way up to the picture and its recipe.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.clips.encode import encode_frames, encode_video
from stillreel.animate.pictures.picture import PictureReader
from stillreel.animate.render.cpu import Renderer
from stillreel.animate.sources import source_of_plan
from stillreel.configs import RequestError
from stillreel.configs.build import ClipSettings
from stillreel.configs.grammar import Grammar, load_grammar
from stillreel.configs.looks import Look, load_look
from stillreel.configs.system.pool import cpu_limit
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.build.isolated import Isolated
from stillreel.shards.format.plan import PlanHeader, PlannedSample
from stillreel.shards.format.receipt import Receipt
from stillreel.shards.format.record import REJECTED, WRITTEN, Record, Rejection
from stillreel.shards.format.writer import ShardWriter

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Sample(NamedTuple):
    """A clip as it goes into a shard: its row, and its members by ending; no members when it was rejected."""

    record: Record
    members: dict[str, bytes]

    @classmethod
    def rejected(cls, planned: PlannedSample, why: Rejection) -> Sample:
        return cls(Record.of(planned, REJECTED, why.reason, why.detail), {})


class Stage(NamedTuple):
    """What all clips of a build share: its settings, and the contents of the presets that they name."""

    settings: ClipSettings
    grammar: Grammar
    look: Look | None

    def presets(self) -> dict[str, Any]:
        """The presets' contents as a plan keeps them; `Stage.of_plan` reads them back."""
        return {
            "grammar": self.grammar.model_dump(mode="json"),
            "look": self.look.model_dump(mode="json") if self.look else None,
        }

    @classmethod
    def of_settings(cls, settings: ClipSettings) -> Stage:
        """Read the presets that settings name; RequestError when one is wrong or does not fit."""
        if settings.store == "video" and settings.size % 2:
            raise RequestError(f"size={settings.size}: store=video needs an even size, as 4:2:0 halves it")
        return cls(settings, load_grammar(settings.grammar), load_look(settings.looks))

    @classmethod
    def of_plan(cls, header: PlanHeader) -> Stage:
        """As it was planned, whatever the presets say today."""
        look = header.presets["look"]
        return cls(
            ClipSettings.resolve(header.settings),
            Grammar.resolve(header.presets["grammar"]),
            Look.resolve(look) if look else None,
        )


def make_shard(task: ShardTask) -> Receipt:
    """Make one shard of clips and publish it; `task.job` says where its source lies now.

    Raises RequestError when this worker's libraries are not the plan's, TooManyRejects early, and whatever storage raises.
    """
    start = perf_counter()
    plan = task.open_plan()
    samples = plan.read_shard(task.shard)
    stage = Stage.of_plan(plan.header)
    maker = ClipMaker(stage)
    with ShardWriter(plan, task.shard, task.max_rejected) as writer, ExitStack() as stack:
        make: Callable[..., Sample] = maker.make
        if task.isolated:
            make = stack.enter_context(Isolated(partial(_maker, stage), stage.settings.picture_cpu_seconds))
        pictures = source_of_plan(plan.header, task.job).read(samples)
        for planned in samples:
            with maker.timed("read"):
                data = next(pictures)
            try:
                sample = make(planned, data)
            except Rejection as guilty:
                sample = Sample.rejected(planned, guilty)
            with maker.timed("write"):
                if sample.members:
                    writer.write(sample.record, sample.members)
                else:
                    writer.reject(sample.record)
        return writer.publish(task.attempt, {**maker.seconds, "total": perf_counter() - start})


def _maker(stage: Stage) -> Callable[..., Sample]:
    return ClipMaker(stage).make


class ClipMaker:
    """Makes samples, one after another, in one process; `seconds` says where the time went."""

    def __init__(self, stage: Stage) -> None:
        self._settings, self._grammar, self._look = stage
        self._grammar_name = self._settings.grammar.rsplit("/", 1)[-1].removesuffix(".yaml")
        self._reader = PictureReader(self._settings)
        self._renderer = Renderer()
        # One buffer for all clips: fresh memory for each would cost as much as two of its frames.
        self._frames = np.empty((stage.settings.frames, stage.settings.size, stage.settings.size, 3), np.uint8)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def make(self, planned: PlannedSample, data: bytes | None) -> Sample:
        """The sample of a planned still whose picture's bytes are `data` (None: not there)."""
        try:
            return self._film(planned, data)
        except Rejection as rejection:
            return Sample.rejected(planned, rejection)

    def _film(self, planned: PlannedSample, data: bytes | None) -> Sample:
        if planned.problem:
            reason, _, detail = planned.problem.partition(": ")
            raise Rejection(reason, detail)
        if data is None:
            raise Rejection("missing", f"{planned.source} is not there")
        with self.timed("decode"), cpu_limit(self._settings.picture_cpu_seconds):
            picture = self._reader.read(data)
            likeness = picture.perceptual_hash()
            point = picture.salient_point() if self._settings.aim == "salient" else None
        with self.timed("draw"):
            recipe, seen = draw_recipe(
                self._grammar_name,
                self._grammar,
                self._look,
                self._settings.seed,
                planned.source_key,
                picture.size,
                planned.captions,
                point,
            )
        described: dict[str, Any] = {
            "recipe": recipe.to_json(),
            "captions": planned.captions,
            "size": picture.size,
            "source_key": planned.source_key,
        }
        if point:
            described["salient_point"] = point  # with which another grammar's recipe can be drawn
        members = {
            "json": _JSON.encode(described).encode(),
            "txt": planned.captions[0].encode(),
        }
        if self._settings.store == "recipe":
            members["jpg"] = picture.jpeg
        else:
            with self.timed("render"):
                clip = self._renderer.film(
                    recipe, picture.pixels, self._settings.frames, self._settings.size, self._frames
                )
            with self.timed("encode"):
                if self._settings.store == "video":
                    members["mp4"] = encode_video(clip, fps=self._settings.fps, quality=self._settings.quality)
                else:
                    members |= {
                        f"{t:03d}.jpg": jpeg for t, jpeg in enumerate(encode_frames(clip, self._settings.quality))
                    }
        record = Record.of(planned, WRITTEN)._replace(
            width=picture.width,
            height=picture.height,
            captions=planned.captions,
            moves=tuple(recipe.moves),
            seen_area=seen,
            phash=likeness,
        )
        return Sample(record, members)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time spent within it to `seconds`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += perf_counter() - start
