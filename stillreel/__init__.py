"""stillreel: captioned stills in, video-text models out.

    from stillreel import SampleDecoder, as_webdataset       read clip shards as a webdataset pipeline, with safe decoders
    from stillreel import ClipLoader, DataSettings, Share, StreamState, open_blend
                                                             stream them into your own trainer, exactly and elastically
    from stillreel import ModelSettings, VideoTextModel, build_model, load_model, load_peer
                                                             the models, fresh, from a checkpoint, or of a peer
    from stillreel import Recipe, Renderer, draw_recipe      one still becomes a clip, without any shards
    from stillreel import search                             search("index", "a dog runs"): the videos of an index

Names are imported when they are first asked for, so `import stillreel` costs nothing and needs neither torch nor Ray. The
rooms are `stillreel.configs`, `.shards`, `.animate`, `.pretrain` and `.finetune`; docs/architecture.md says what lies where.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillreel.animate.camera.draw import draw_recipe as draw_recipe
    from stillreel.animate.camera.recipe import Recipe as Recipe
    from stillreel.animate.clips.decode import SampleDecoder as SampleDecoder
    from stillreel.animate.render.cpu import Renderer as Renderer
    from stillreel.configs.model import ModelSettings as ModelSettings
    from stillreel.configs.stream import DataSettings as DataSettings
    from stillreel.finetune.search import search as search
    from stillreel.pretrain.data import ClipLoader as ClipLoader
    from stillreel.pretrain.data import Share as Share
    from stillreel.pretrain.model import VideoTextModel as VideoTextModel
    from stillreel.pretrain.model import build_model as build_model
    from stillreel.pretrain.model import load_model as load_model
    from stillreel.pretrain.model import load_peer as load_peer
    from stillreel.shards.dataset import as_webdataset as as_webdataset
    from stillreel.shards.stream.stream import State as StreamState
    from stillreel.shards.stream.stream import open_blend as open_blend

__version__ = "0.1.0"

logging.getLogger("stillreel").addHandler(logging.NullHandler())  # in someone's program it is silent unless asked

_HOMES = {
    "ClipLoader": "pretrain.data",
    "DataSettings": "configs.stream",
    "ModelSettings": "configs.model",
    "Recipe": "animate.camera.recipe",
    "Renderer": "animate.render.cpu",
    "SampleDecoder": "animate.clips.decode",
    "Share": "pretrain.data",
    "StreamState": "shards.stream.stream",
    "VideoTextModel": "pretrain.model",
    "as_webdataset": "shards.dataset",
    "build_model": "pretrain.model",
    "draw_recipe": "animate.camera.draw",
    "load_model": "pretrain.model",
    "load_peer": "pretrain.model",
    "open_blend": "shards.stream.stream",
    "search": "finetune.search",
}

__all__ = [
    "ClipLoader",
    "DataSettings",
    "ModelSettings",
    "Recipe",
    "Renderer",
    "SampleDecoder",
    "Share",
    "StreamState",
    "VideoTextModel",
    "as_webdataset",
    "build_model",
    "draw_recipe",
    "load_model",
    "load_peer",
    "open_blend",
    "search",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'stillreel' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(f"stillreel.{_HOMES[name]}"), "State" if name == "StreamState" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
