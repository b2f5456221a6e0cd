"""Where a published checkpoint keeps each of our tensors, and the strict exchange of one for the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from stillreel.pretrain.model.keys import Fate, KeyLine, check_shapes


class Place(NamedTuple):
    """The published name of one of our tensors; several are stacked, in order, along the first axis; none: not in the file.

    `thirds` of the published one's first axis are ours, from one to before another. `axes` is 1 where it has one more in front
    of ours, of length one, and -1 where it lacks that axis of ours.
    """

    names: tuple[str, ...]
    transposed: bool = False
    thirds: tuple[int, int] = (0, 3)
    axes: int = 0

    def shape_of_each(self, ours: torch.Size) -> tuple[int, ...]:
        """The shape of each published tensor, for the shape of ours."""
        shape = tuple(reversed(ours)) if self.transposed else tuple(ours)
        shape = (1, *shape) if self.axes == 1 else shape[-self.axes :] if self.axes else shape
        if self.thirds != (0, 3):
            return (3 * shape[0] // (self.thirds[1] - self.thirds[0]), *shape[1:])
        return shape if len(self.names) == 1 else (shape[0] // len(self.names), *shape[1:])

    def join(self, tensors: Iterable[Tensor]) -> Tensor:
        """Ours from the published ones."""
        parts = list(tensors)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.thirds != (0, 3):
            joined = torch.cat(joined.chunk(3)[slice(*self.thirds)])
        if self.axes:
            joined = joined[0] if self.axes == 1 else joined[None]
        return joined.T.contiguous() if self.transposed else joined

    def split(self, ours: Tensor) -> dict[str, Tensor]:
        """The published ones from ours: weights, or their gradients; of those of which ours is a part, that part."""
        whole = ours.T if self.transposed else ours
        if self.axes:
            whole = whole[None] if self.axes == 1 else whole[0]
        parts = whole.chunk(len(self.names)) if len(self.names) > 1 else [whole] * len(self.names)
        return dict(zip(self.names, parts, strict=True))


_OF_HUB_BLOCKS = {
    "attn.out_proj.": "self_attn.out_proj.",
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}


def place_in_hub_block(block: str, leaf: str) -> Place:
    """Where Hugging Face's CLIP, and what is built on it, keeps a tensor of a block: query, key and value lie apart."""
    if leaf.startswith("attn.in_proj_"):
        kind = leaf.removeprefix("attn.in_proj_")
        return Place(tuple(f"{block}self_attn.{part}_proj.{kind}" for part in "qkv"))
    for ours, theirs in _OF_HUB_BLOCKS.items():
        if leaf.startswith(ours):
            return Place((block + theirs + leaf.removeprefix(ours),))
    return Place((block + leaf,))


def collect(
    state: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    place: Callable[[str], Place],
    unused: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, Tensor], list[KeyLine]]:
    """Tensors by our names, in fp32, from those of a file; and what became of each of those.

    `shapes` are ours, `unused` those that the file must have although the model does not use them. Raises DataError for
    every missing, unexpected or wrong-shaped tensor of the file; nothing is skipped and nothing resized.
    """
    places = {name: where for name in shapes if (where := place(name)).names}
    expected = {theirs: where.shape_of_each(shapes[name]) for name, where in places.items() for theirs in where.names}
    check_shapes({name: tuple(tensor.shape) for name, tensor in state.items()}, expected | dict(unused))
    tensors: dict[str, Tensor] = {}
    lines: list[KeyLine] = []
    for name, where in places.items():
        joined = where.join(state[theirs] for theirs in where.names)
        tensors[name] = joined.to(torch.float32, copy=True)
        fate: Fate = "merged" if len(where.names) > 1 else "kept" if where.names == (name,) else "renamed"
        note = "transposed" if where.transposed else "" if where.thirds == (0, 3) else "a part of its rows"
        lines += [KeyLine(fate, theirs, name, note) for theirs in where.names]
    lines += [KeyLine("unused", name, "", "the published model has it and never uses it") for name in unused]
    return tensors, lines
