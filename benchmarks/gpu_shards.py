"""Recipe shards for a GPU day: of pictures in a folder, or of scenes drawn by code."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks.manifest import manifest_by_hand
from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.clips.decode import picture_of
from stillreel.animate.scenes import caption_of, draw_scene, plan_scene
from stillreel.configs.grammar import Grammar, load_grammar
from stillreel.configs.system.hardware import usable_cores
from stillreel.configs.system.pool import process_pool
from stillreel.shards.format.index import encode_index, entry_of
from stillreel.shards.format.manifest import ShardLine
from stillreel.shards.format.writer import TarWriter
from stillreel.shards.stream.stream import Blend

Pixels = NDArray[np.uint8]

_SHARD = 128  # samples


def write_shards(folder: Path, pictures: Path | None, most: int, named: str) -> int:
    """Shards of at most so many pictures, read or (None) drawn on all cores, by the grammar of this name; how many they are."""
    grammar = load_grammar(named)
    files = sorted(pictures.glob("*.jp*g"))[:most] if pictures else []
    count = len(files) if pictures else most
    if not count:
        raise SystemExit(f"no JPEGs in {pictures}")
    (folder / "shards").mkdir()
    shards = [range(first, min(first + _SHARD, count)) for first in range(0, count, _SHARD)]
    write = partial(write_shard, folder=folder / "shards", files=files, grammar=(named, grammar))
    with process_pool(usable_cores()) as pool:
        lines = list(pool.map(write, shards))
    presets = {"grammar": grammar.model_dump(), "look": None}
    (folder / "manifest.json").write_bytes(manifest_by_hand("gpu", "", {"grammar": named}, presets, lines).encode())
    return count


def write_shard(numbers: range, folder: Path, files: list[Path], grammar: tuple[str, Grammar]) -> ShardLine:
    """One shard; returns its line in the manifest."""
    name, entries = f"gpu-{numbers[0] // _SHARD:06d}", []
    with open(folder / f"{name}.tar", "wb") as file:
        tar = TarWriter(file)
        for number in numbers:
            jpeg, caption = (files[number].read_bytes(), files[number].stem) if files else drawn(number)
            height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
            recipe = draw_recipe(*grammar, None, 0, str(number), (width, height), [caption]).recipe
            described = {"recipe": recipe.to_json(), "captions": [caption], "source_key": str(number)}
            members = {"jpg": jpeg, "json": json.dumps(described).encode(), "txt": caption.encode()}
            key = f"gpu_{number:09d}"
            entries.append(entry_of(key, tar.add([(f"{key}.{end}", data) for end, data in members.items()])))
        tar.finish()
    (folder / f"{name}.idx").write_bytes(encode_index(entries))
    return ShardLine(name, len(numbers), len(numbers), (folder / f"{name}.tar").stat().st_size, receipt=name)


def drawn(number: int) -> tuple[bytes, str]:
    """A scene as a JPEG, and its caption."""
    scene = plan_scene(0, number)
    return simplejpeg.encode_jpeg(draw_scene(scene), quality=90, colorsubsampling="420"), caption_of(scene)


def first_stills(blend: Blend, count: int) -> list[tuple[Recipe, Callable[[int], Pixels]]]:
    """Recipes of the first shard, and what loads their pictures."""
    found = []
    with tarfile.open(next(Path(blend.corpora[0].url).glob("shards/*-000000.tar"))) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                jpeg = tar.extractfile(member).read()  # type: ignore[union-attr]
            elif member.name.endswith(".json"):
                recipe = Recipe.from_json(json.loads(tar.extractfile(member).read())["recipe"])  # type: ignore[union-attr]
                found.append((recipe, picture_of(jpeg, recipe)))
    return found[:count]
