"""Published checkpoints: CLIP4Clip, CLIP2Video, STAN and Mug-STAN, by their own names, strictly.

One module a family says which tensors it has, what they tell of the model, and what they cannot tell; `keymap` exchanges
them for ours. What every family may carry that is no weight of it is taken off here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from stillreel.configs import DataError
from stillreel.configs.model import PeerOptions, TowerSettings
from stillreel.pretrain.model.files import read_tensors
from stillreel.pretrain.model.keys import KeyLine
from stillreel.pretrain.model.model import VideoTextModel, assign_tensors
from stillreel.pretrain.model.peers import clip2video, clip4clip, stan
from stillreel.pretrain.model.peers.keymap import collect
from stillreel.pretrain.model.towers import build_towers

FAMILIES: dict[str, ModuleType] = {"clip4clip": clip4clip, "clip2video": clip2video, "stan": stan}

_OF_CLIP2VIDEO = (
    "trans_layernorm.",
    "weight_center",
    "emb_center",
    "type_position_embeddings.",
    "frame2t_",
    "actionClip.",
)
_RENAMED = {"timesFPN_": "STAN_"}  # STAN's first release
_NO_WEIGHTS = {  # what old files carry beside the weights -> why it is left out
    r".*embeddings\.position_ids": "indices that old versions of transformers stored",
    r"backbone\.STAN_(pos_embed|cls_token)": "never used, not even by STAN's first release",
}


def load_peer(source: Mapping[str, Tensor] | str | Path, options: PeerOptions | None = None) -> VideoTextModel:
    """The model of a published checkpoint (a state dict, or a file of one), in evaluation mode on the CPU.

    Sizes come from the tensors alone; half precision is cast up; tensors of the meta device make a model of it. Raises
    DataError for every missing, unexpected or wrong-shaped tensor.
    """
    return read_peer(source, options)[0]


def read_peer(
    source: Mapping[str, Tensor] | str | Path, options: PeerOptions | None = None
) -> tuple[VideoTextModel, list[KeyLine]]:
    """`load_peer`, and what became of every tensor."""
    options = options or PeerOptions()
    if isinstance(source, str | Path):
        try:
            return read_peer(read_tensors(source), options)
        except DataError as error:
            raise DataError(str(error) if str(source) in str(error) else f"{source}: {error}") from None
    state, given, lines = _weights(source)
    family = FAMILIES[_family(state) if options.family == "auto" else options.family]
    tower = family.towers(state)
    settings = family.settings(state, options).model_copy(update={"towers": TowerSettings(name="inferred")})
    with torch.device("meta"):
        model = VideoTextModel(build_towers(tower.model_cfg()), settings)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    tensors, found = collect(state, shapes, family.place, family.unused(tower, settings))
    lines += [line._replace(given=given[line.given]) for line in found]
    lines += [KeyLine("initialized", "", name, f"{value}: not in the file") for name, value in family.assumed(settings)]
    if settings.temperature:
        device = tensors["clip.positional_embedding"].device
        tensors["clip.logit_scale"] = torch.tensor(math.log(1 / settings.temperature), device=device)
    assign_tensors(model, tensors)
    return model, lines


def _weights(source: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], list[KeyLine]]:
    """Tensors under the names of the newest release; by these, their names in the file; and what was left out."""
    state: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    left_out: list[KeyLine] = []
    for given, tensor in source.items():
        name = given.removeprefix("module.")  # of DistributedDataParallel
        for old, new in _RENAMED.items():
            name = name.replace(old, new)
        why = next((why for pattern, why in _NO_WEIGHTS.items() if re.fullmatch(pattern, name)), None)
        if why:
            left_out.append(KeyLine("unused", given, "", why))
        elif name in state:
            raise DataError(f"{given}: the file has {name} twice, under an old and a new name")
        else:
            state[name], names[name] = tensor, given
    return state, names, left_out


def _family(state: Mapping[str, Tensor]) -> str:
    if any(name.startswith("backbone.") for name in state):
        return "stan"
    if any(name.startswith(_OF_CLIP2VIDEO) for name in state):
        return "clip2video"
    if any(name.startswith("clip.") for name in state):
        return "clip4clip"
    given = ", ".join(list(state)[:3]) or "none"
    raise DataError(
        f"no checkpoint of CLIP4Clip, CLIP2Video or STAN: their tensors begin with clip. or backbone.; here are {given}"
    )
