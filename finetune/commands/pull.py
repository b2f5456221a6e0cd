"""A model or a data set of ours comes from the Hugging Face hub: `stillreel pull REPO OUT`.

REPO is `me/model`, or `datasets/me/clips`. Run again, it goes on, and fetches what has changed. What arrives is looked at: a
model's config.json, a data set's manifest.json.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from stillreel.configs import RequestError
from stillreel.configs.exchange import PullSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.hub.ask import asking, repository
from stillreel.pretrain.model.checkpoint import CONFIG
from stillreel.pretrain.run.opening import describe
from stillreel.shards.format.manifest import read_manifest

_MARK = Path(".cache", "huggingface")  # of huggingface_hub's, in a folder that it fetches into


def run(repo: str, out: str, settings: PullSettings) -> int:
    """Fetch REPO into OUT. RequestError where it is not there, is nothing of ours, or OUT holds something else."""
    what, folder = repository(repo), Folder(out)
    if not folder.is_local:
        raise RequestError(f"OUT {out}: it must lie on a disk")
    home = Path(folder.path)
    if home.is_dir() and any(home.iterdir()) and not (home / _MARK).is_dir():
        raise RequestError(f"OUT {out} holds something that was not pulled; give another folder")
    with asking(what):
        snapshot_download(what.name, repo_type=what.kind, revision=settings.revision, local_dir=home)
    if what.kind == "dataset":
        totals = read_manifest(folder).totals
        print(f"{out}: {totals.written:,} clips in {totals.shards:,} shards; stillreel verify {out} reads every byte")
        return 0
    if not (home / CONFIG).is_file():
        raise RequestError(
            f"REPO {repo}: it has no {CONFIG}: no model of stillreel's; open_clip's are read as hf-hub:{repo}"
        )
    model = describe(out).settings
    print(f"{out}: temporal={model.temporal} head={model.head}; checkpoint={out} and init={out} read it")
    return 0
