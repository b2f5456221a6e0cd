"""A checkpoint of somebody else's becomes one of ours: `stillreel import-checkpoint FILE OUT`.

CLIP4Clip, CLIP2Video, STAN and Mug-STAN become the model that they are; OpenAI's, open_clip's and the hub's CLIP become the
mean over frames, which is what a CLIP is as a video model, and so does every other model of open_clip's, in whatever trainer's
folder. OUT/report.txt says what became of every key.
"""

from __future__ import annotations

from pathlib import Path

from stillreel.configs.exchange import ImportSettings
from stillreel.configs.model import TowerSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.checkpoint import check_free, save_model
from stillreel.pretrain.model.files import Checkpoint, read_checkpoint
from stillreel.pretrain.model.keys import summarize
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.run.opening import open_model, read_foreign

_REPORT = "report.txt"


def run(file: str, out: str, settings: ImportSettings) -> int:
    """Read strictly, write OUT, print what did not go over one to one."""
    folder = Folder(out)
    check_free(folder)
    if not Path(file).expanduser().exists():
        model = open_model(file, settings.pretrained)
        save_model(model, folder, {"file": file, "settings": settings.model_dump(mode="json")})
        print(f"{folder.url}: {_in_words(model)}")
        return 0
    checkpoint = read_checkpoint(file)
    about = _about_file(file, checkpoint)
    told = {"auto": None, "yes": True, "no": False}[settings.quick_gelu]
    base = TowerSettings(name=settings.towers, pretrained=settings.pretrained) if settings.towers else None
    model, lines = read_foreign(file, checkpoint, peer=settings.peer, quick_gelu=told, base=base)
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
    gelu = "QuickGELU" if cfg.get("quick_gelu") else "GELU"
    tower = vision.get("timm_model_name") or (
        f"ViT {vision['layers']} x {vision['width']}, patches of {vision['patch_size']}, {gelu}"
        if isinstance(vision["layers"], int)
        else f"ResNet {vision['layers']} x {vision['width']}"
    )
    return f"temporal={settings.temporal} align={settings.align} head={settings.head} on {tower}; {count / 1e6:.1f} M parameters"
