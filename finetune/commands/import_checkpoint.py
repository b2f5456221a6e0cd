"""A checkpoint of somebody else's becomes one of ours: `stillreel import-checkpoint FILE OUT`.

CLIP4Clip, CLIP2Video, STAN and Mug-STAN become the model that they are; OpenAI's, open_clip's and the hub's CLIP become the
mean over frames, which is what a CLIP is as a video model. OUT/report.txt says what became of every key.
"""

from __future__ import annotations

from collections.abc import Sequence

from stillreel.configs import DataError, RequestError
from stillreel.configs.exchange import ImportSettings
from stillreel.configs.model import PeerOptions, TowerSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.model import ModelSettings, VideoTextModel, read_peer
from stillreel.pretrain.model.checkpoint import check_free, save_model
from stillreel.pretrain.model.clip_files import is_clip, read_clip
from stillreel.pretrain.model.files import FORMAT, Checkpoint, read_checkpoint
from stillreel.pretrain.model.keys import KeyLine, summarize
from stillreel.pretrain.model.towers import build_towers, model_cfg_of

_REPORT = "report.txt"


def run(file: str, out: str, settings: ImportSettings) -> int:
    """Read strictly, write OUT, print what did not go over one to one."""
    folder = Folder(out)
    check_free(folder)
    checkpoint = read_checkpoint(file)
    about = _about_file(file, checkpoint)
    model, lines = read_foreign(file, checkpoint, settings)
    checkpoint.tensors.clear()  # the model has its own: a large one fits in memory twice, and not three times
    origin = {"file": file, "container": checkpoint.container, "settings": settings.model_dump(mode="json")}
    save_model(model, folder, origin)
    report = [*about, summarize(lines), *map(str, lines)]
    folder.publish(_REPORT, ("\n".join(report) + "\n").encode())
    loud = [str(line) for line in lines if line.what in ("initialized", "unused")]
    print("\n".join([*about, *loud]))
    print(f"{summarize(lines)}; each key: {folder.locate(_REPORT)}")
    print(f"{folder.url}: {_in_words(model)}")
    return 0


def read_foreign(
    file: str, checkpoint: Checkpoint, settings: ImportSettings
) -> tuple[VideoTextModel, Sequence[KeyLine]]:
    """The model that somebody else's file is, and what became of each of its tensors. RequestError for one of ours."""
    if checkpoint.config.get("format") == FORMAT:
        raise RequestError(f"{file} is a model of stillreel's already; use it as it is, or export it")
    try:
        if is_clip(checkpoint.tensors):
            if settings.peer != PeerOptions():
                raise RequestError(f"peer.* is for CLIP4Clip, CLIP2Video and STAN, and {file} is a CLIP alone")
            return _read_clip(checkpoint, settings)
        if settings.quick_gelu != "auto":
            raise RequestError(
                f"quick_gelu is for CLIPs alone; {file} is a video model, and all published have QuickGELU"
            )
        return read_peer(checkpoint.tensors, settings.peer)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _read_clip(checkpoint: Checkpoint, settings: ImportSettings) -> tuple[VideoTextModel, Sequence[KeyLine]]:
    told = {"auto": None, "yes": True, "no": False}[settings.quick_gelu]
    clip = read_clip(checkpoint, quick_gelu=told)
    towers = build_towers(clip.model_cfg)
    towers.load_state_dict(clip.state, strict=True)
    mean = ModelSettings(towers=TowerSettings(name="inferred"))
    return VideoTextModel(towers, mean).eval(), clip.lines


def _about_file(file: str, checkpoint: Checkpoint) -> list[str]:
    lines = [f"{file}: {checkpoint.container}, {len(checkpoint.tensors)} tensors"]
    if checkpoint.place:
        lines.append(f"taken: its entry {checkpoint.place!r}")
    if checkpoint.prefix:
        lines.append(f"taken off every name: {checkpoint.prefix!r}")
    if checkpoint.left:
        lines.append(f"left: {', '.join(map(repr, checkpoint.left))}")
    return lines


def _in_words(model: VideoTextModel) -> str:
    settings, cfg = model.settings, model_cfg_of(model.clip)
    vision, count = cfg["vision_cfg"], sum(tensor.numel() for tensor in model.state_dict().values())
    gelu = "QuickGELU" if cfg["quick_gelu"] else "GELU"
    return (
        f"temporal={settings.temporal} align={settings.align} head={settings.head} on ViT {vision['layers']} x "
        f"{vision['width']}, patches of {vision['patch_size']}, {gelu}; {count / 1e6:.1f} M parameters"
    )
