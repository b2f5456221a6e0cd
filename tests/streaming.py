"""What tests of the stream make things of: small data sets of any shard sizes, written by hand, and readers of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.manifest import manifest_by_hand
from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.render.device import render_stills
from stillreel.configs.grammar import load_grammar
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data import ClipBatch, ClipLoader, Share
from stillreel.shards.format.index import encode_index, entry_of
from stillreel.shards.format.manifest import ShardLine
from stillreel.shards.format.writer import TarWriter
from stillreel.shards.stream.stream import Blend, Slot, State, Stream, merged, open_blend, slots_of
from tests.making import jpeg

FRAMES, SIZE = 2, 32
_PICTURES = [jpeg(number, 64, 48) for number in range(4)]


def write_set(folder: Path, sizes: Sequence[int], *, name: str = "clips", seed: int = 0) -> Path:
    """A finished data set (store=recipe) with shards of these sizes, as the stream sees one. Sizes may be 0."""
    grammar = load_grammar("film")
    number, lines = 0, []
    (folder / "shards").mkdir(parents=True)
    for shard, size in enumerate(sizes):
        stem = f"{name}-{shard:06d}"
        entries = []
        with open(folder / "shards" / f"{stem}.tar", "wb") as file:
            tar = TarWriter(file)
            for _ in range(size):
                key = f"{name}_{number:09d}"
                recipe = draw_recipe("film", grammar, None, seed, str(number), (64, 48), [f"clip {number}"]).recipe
                described = {"recipe": recipe.to_json(), "captions": [f"clip {number}"], "source_key": str(number)}
                members = {"jpg": _PICTURES[number % 4], "json": json.dumps(described).encode(), "txt": b"clip"}
                entries.append(entry_of(key, tar.add([(f"{key}.{end}", data) for end, data in members.items()])))
                number += 1
            tar.finish()
        (folder / "shards" / f"{stem}.idx").write_bytes(encode_index(entries))
        size_bytes = (folder / "shards" / f"{stem}.tar").stat().st_size
        lines.append(ShardLine(stem, size, size, size_bytes, receipt=stem))
    settings, presets = (
        {"store": "recipe", "grammar": "film"},
        {"grammar": grammar.model_dump(mode="json"), "look": None},
    )
    digest = hashlib.sha256(repr((name, seed, sizes)).encode()).hexdigest()
    (folder / "manifest.json").write_bytes(manifest_by_hand(name, digest, settings, presets, lines).encode())
    return folder


def settings_of(**values: object) -> DataSettings:
    return DataSettings.resolve({"frames": FRAMES, "size": SIZE, "context_length": 0, **values})


def digest_of(batch: ClipBatch) -> list[str]:
    """A line a clip: its key, its caption and the sha256 of its frames, with its mask."""
    if batch.frames is not None:
        clips: list[Any] = [batch.frames[at].numpy() for at in range(len(batch.keys))]
        if batch.mask is not None:
            masks = batch.mask.numpy().view(np.uint8)
            clips = [np.append(clip, mask) for clip, mask in zip(clips, masks, strict=True)]
    else:
        assert batch.stills is not None
        # A plan is of the rank's whole share: only what comes of it is a clip's own.
        clips = list(render_stills(batch.stills, "cpu").numpy())
    return [
        f"{key} {caption} {hashlib.sha256(clip.tobytes()).hexdigest()[:16]}"
        for key, caption, clip in zip(batch.keys, batch.captions, clips, strict=True)
    ]


def read_steps(
    data: Path | str,
    settings: DataSettings,
    *,
    batch: int,
    steps: int,
    ranks: int = 1,
    workers: int = 0,
    state: State | None = None,
    start_method: str | None = None,
) -> tuple[list[list[str]], State]:
    """Global batches as lines of `digest_of`, read by real loaders of a layout and merged; and the state after them."""
    blend = open_blend(str(data))
    loaders = [
        ClipLoader(
            blend,
            settings,
            Share(batch, rank, ranks),
            workers=workers,
            state=state,
            steps=steps,
            start_method=start_method,
        )
        for rank in range(ranks)
    ]
    found = [merged([digest_of(one) for one in batches]) for batches in zip(*loaders, strict=True)]
    states = {loader.state for loader in loaders}
    assert len(states) == 1
    return found, states.pop()


def batches_of(
    blend: Blend, settings: DataSettings, *, batch: int, ranks: int, workers: int, state: State
) -> Iterator[list[str]]:
    """Global batches of keys and member bytes, without end, each read by a stream of its rank and worker."""
    streams = [[Stream(blend, settings) for _ in range(max(workers, 1))] for _ in range(ranks)]
    step = 0
    while True:
        consumed = state.samples + step * batch
        shares = []
        for rank in range(ranks):
            stream = streams[rank][step % max(workers, 1)]
            slots: list[Slot[str]] = stream.read(
                slots_of(consumed, batch, rank, ranks),
                lambda sample, _: hashlib.sha256(repr(sorted(sample.members.items())).encode()).hexdigest()[:16],
            )
            shares.append([f"{slot.key} {slot.value}" for slot in slots])
        yield merged(shares)
        step += 1


def keys_of_epoch(blend: Blend) -> set[str]:
    """Keys of the samples that the first epoch of a data set gives, whole or not."""
    stream = Stream(blend, settings_of())
    return {slot.key for slot in stream.read(np.arange(blend.corpora[0].samples), lambda sample, _: sample.key)}
