"""Where a published checkpoint keeps each of our tensors, and the strict exchange of one for the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from configs import DataError

_SHOWN = 8  # wrong tensors that an error names


class Place(NamedTuple):
    """The published name of one of our tensors; several are stacked, in order, along the first axis; none: not in the file."""

    names: tuple[str, ...]
    transposed: bool = False

    def shape_of_each(self, ours: torch.Size) -> tuple[int, ...]:
        """The shape of each published tensor, for the shape of ours."""
        shape = tuple(reversed(ours)) if self.transposed else tuple(ours)
        return shape if len(self.names) == 1 else (shape[0] // len(self.names), *shape[1:])

    def join(self, tensors: Iterable[Tensor]) -> Tensor:
        """Ours from the published ones."""
        parts = list(tensors)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined.T.contiguous() if self.transposed else joined

    def split(self, ours: Tensor) -> dict[str, Tensor]:
        """The published ones from ours: weights, or their gradients."""
        whole = ours.T if self.transposed else ours
        return dict(zip(self.names, whole.chunk(len(self.names)) if len(self.names) > 1 else [whole], strict=True))


class Report(NamedTuple):
    """What became of every tensor of a file."""

    family: str
    loaded: dict[str, tuple[str, ...]]  # our name -> the published names it was made of
    unused: dict[str, str]  # published name -> why the model has no use for it
    assumed: dict[str, str]  # what the file does not say -> what was taken for it

    def lines(self) -> list[str]:
        """For people: a line per tensor."""
        return [
            f"{self.family}: {len(self.loaded)} tensors loaded, {len(self.unused)} not used",
            *(f"  {name} = {value}   (not in the file)" for name, value in self.assumed.items()),
            *(f"  {' + '.join(names)} -> {ours}" for ours, names in self.loaded.items()),
            *(f"  {name}: {why}" for name, why in self.unused.items()),
        ]


def collect(
    family: str,
    state: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    place: Callable[[str], Place],
    unused: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:
    """Tensors by our names, in fp32, from those of a file.

    `shapes` are ours, `unused` those that the file must have although the model does not use them. Raises DataError that
    names every missing, unexpected or wrong-shaped tensor of the file; nothing is skipped and nothing resized.
    """
    places = {name: place(name) for name in shapes}
    expected = {
        theirs: places[name].shape_of_each(shape) for name, shape in shapes.items() for theirs in places[name].names
    }
    expected.update(unused)
    problems = [f"{name}: missing, expected {shape}" for name, shape in expected.items() if name not in state]
    problems += [f"{name}: not a tensor of this model" for name in state if name not in expected]
    problems += [
        f"{name}: {tuple(state[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"these tensors do not make a {family} model:\n  " + "\n  ".join(problems[:_SHOWN]) + more)
    return {
        name: one.join(state[theirs] for theirs in one.names).to(torch.float32, copy=True)
        for name, one in places.items()
        if one.names
    }
