"""python -m tests.towers [NAME...]: each model of open_clip's list as towers, small, beside open_clip's own model.

Each has two layers a tower, or its own smallest depth, and random weights. It is accepted when the features of 2 frames and
of captions are those of open_clip's `encode_image` and `encode_text` to 1e-5, and when, where it is small, it is saved and
read back to the bit; else refused, by one sentence.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest import mock

import open_clip
import timm
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor

from stillreel.configs import StillreelError
from stillreel.configs.model import ModelSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.adapter import image_size, text_of
from stillreel.pretrain.model.checkpoint import save_model
from stillreel.pretrain.model.pretrained import preprocess_named
from stillreel.pretrain.model.towers import build_towers

CLOSE = 1e-5
WORDS = 600  # of a vocabulary
_SAVED = 40_000_000  # weights: larger ones cost a disk more than they tell
_SHALLOW: tuple[dict[str, Any], ...] = ({"depth": 2}, {"depths": (1, 1, 1, 1)}, {"layers": (1, 1, 1, 1)})
_FIVE_STAGES = {"fastvit_mci3", "fastvit_mci4"}
_create = timm.create_model


@contextmanager
def shallow_timm() -> Iterator[None]:
    """Within it, timm makes its models with two layers, or one a stage, where they can be told."""

    def create(name: str, **asked: Any) -> Any:
        for fewer in ({"layers": (1,) * 5},) if name in _FIVE_STAGES else _SHALLOW:
            try:
                return _create(name, **asked, **fewer)
            except (TypeError, AttributeError, AssertionError, IndexError):
                continue
        return _create(name, **asked)

    with mock.patch.object(timm, "create_model", create):
        yield


def small_cfg(name: str) -> dict[str, Any]:
    """The configuration of a name with two layers a tower and few words."""
    cfg = deepcopy(open_clip.get_model_config(name))
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    vision["layers"] = [1, 1, 1, 1] if isinstance(vision.get("layers"), list) else 2
    text |= {"layers": 2, "vocab_size": WORDS}
    if "multimodal_cfg" in cfg:
        cfg["multimodal_cfg"] |= {"layers": 1}
    return cfg


def captions_for(clip: torch.nn.Module, count: int = 3) -> Tensor:
    """Random token ids that end as those of the tower's tokenizer do."""
    text, length = text_of(clip), clip.context_length
    ids = torch.randint(3, WORDS - 1, (count, length))
    pool = getattr(text, "pool_type", "argmax")
    end = {"argmax": WORDS - 1, "eos": getattr(text, "eos_id", 2)}.get(pool, 1)
    for row, words in enumerate(torch.randint(3, length, (count,)).tolist()):
        ids[row, words - 1], ids[row, words:] = end, 0
    return ids


def open_clips_own(cfg: dict[str, Any], state: dict[str, Tensor]) -> torch.nn.Module:
    """open_clip's own model of a configuration, of the class that its factory takes, with these weights."""
    cfg = deepcopy(cfg)
    kind = CustomTextCLIP if cfg.pop("custom_text", False) else CLIP
    model = CoCa(**cfg) if "multimodal_cfg" in cfg else kind(**cfg)
    if isinstance(model, CLIP):
        state = {name.removeprefix("text."): tensor for name, tensor in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith("text_decoder.") for name in missing), (missing, unexpected)
    return model.eval()


def compare(name: str) -> float:
    """The largest difference of features from open_clip's. StillreelError where the name is refused."""
    torch.manual_seed(0)
    cfg = small_cfg(name)
    with torch.no_grad():
        model = VideoTextModel(build_towers(cfg, preprocess_named(name)), ModelSettings()).eval()
        clip = model.clip
        for weight in clip.parameters():  # none is zero, as layer scales and biases would be
            weight.add_(0.02 * torch.randn_like(weight))
        theirs = open_clips_own(cfg, clip.state_dict())
        frames, ids = torch.randn(1, 2, 3, *image_size(clip)), captions_for(clip)
        plain = {} if not isinstance(theirs, CoCa) else {"normalize": False}
        image, text = theirs.encode_image(frames[0], **plain), theirs.encode_text(ids, **plain)
        video, words = model.encode_video(frames), model.encode_text(ids)
        assert words.tokens.shape[:2] == words.mask.shape and words.mask.any(dim=1).all()
        if sum(weight.numel() for weight in model.parameters()) < _SAVED:
            with tempfile.TemporaryDirectory() as folder:
                save_model(model, Folder(str(Path(folder, "model"))), {})
                again = load_model(Path(folder, "model"))
            assert torch.equal(again.encode_video(frames).pooled, video.pooled), "saved and read back, it is another"
        return max(_apart(video.frames[0], image), _apart(words.pooled, text))


def _apart(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape and theirs.abs().max() > 0
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main(names: list[str]) -> int:
    """Print a table; 1 where a name is neither as open_clip's nor refused."""
    counts: Counter[str] = Counter()
    for name in names or open_clip.list_models():
        try:
            with warnings.catch_warnings(), shallow_timm():
                warnings.simplefilter("ignore")
                apart = compare(name)
            told = "accepted" if apart <= CLOSE else "DIFFERS"
            print(f"{name:<36}{told:<10}{apart:.1e}", flush=True)
        except StillreelError as error:
            told = "refused"
            print(f"{name:<36}{told:<10}{error}", flush=True)
        except Exception as error:
            told = "TRACEBACK"
            print(f"{name:<36}{told:<10}{error!r}", flush=True)
        counts[told] += 1
    print(", ".join(f"{count} {told}" for told, count in counts.items()))
    return int(bool(counts["DIFFERS"] or counts["TRACEBACK"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
