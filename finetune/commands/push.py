"""A model or a data set of ours goes to the Hugging Face hub: `stillreel push WHAT REPO`.

Of a model go its weights and config.json, and the results.json of its run; of a data set its plans, shards and manifest. What
makes it whole (config.json, manifest.json) goes last, when all else is there. Run again, it goes on: what is there already is
not sent. A card, README.md, is written where there is none, and is then its owner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi

from stillreel.configs import DataError, RequestError
from stillreel.configs.exchange import PushSettings
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.storage import Folder
from stillreel.finetune.evaluation.results import RESULTS, read_results
from stillreel.finetune.hub.ask import Kind, Repository, asking, repository
from stillreel.finetune.hub.cards import data_card, model_card
from stillreel.pretrain.model.checkpoint import CONFIG, WEIGHTS
from stillreel.pretrain.model.files import FORMAT
from stillreel.pretrain.run.folder import FINAL
from stillreel.pretrain.run.opening import model_folder
from stillreel.shards.format.manifest import MANIFEST, read_manifest

CARD = "README.md"


class Parcel(NamedTuple):
    """What goes: files of a folder by patterns, the one that makes them whole, others from elsewhere, and a card."""

    folder: Path
    kind: Kind
    patterns: Sequence[str]
    last: str
    beside: Sequence[Path]
    card: str


def run(what: str, repo: str, settings: PushSettings) -> int:
    """Send WHAT. RequestError where it is nothing of ours, or the hub refuses; DataError where it is not whole."""
    named = repository(repo)
    parcel = _data_set(what, named, settings) if Folder(what).exists(MANIFEST) else _model(what, named, settings)
    to = Repository(named.name, parcel.kind)
    if named.kind == "dataset" and parcel.kind == "model":
        raise RequestError(f"{what} is a model, and REPO {repo} a data set's name; give {named.name}")
    api = HfApi()
    with asking(to):
        made = api.create_repo(to.name, repo_type=to.kind, private=settings.private, exist_ok=True)
        _send(api, parcel, to, settings.revision)
    print(f"{made}: {what}; stillreel pull {to} OUT")
    return 0


def _send(api: HfApi, parcel: Parcel, to: Repository, revision: str) -> None:
    def one(file: Path | bytes, name: str, message: str) -> None:
        api.upload_file(
            path_or_fileobj=file,
            path_in_repo=name,
            repo_id=to.name,
            repo_type=to.kind,
            revision=revision,
            commit_message=message,
        )

    api.upload_folder(
        folder_path=parcel.folder,
        allow_patterns=[*parcel.patterns],
        repo_id=to.name,
        repo_type=to.kind,
        revision=revision,
        commit_message="All but what makes it whole",
    )
    for file in parcel.beside:
        one(file, file.name, file.name)
    if not api.file_exists(to.name, CARD, repo_type=to.kind, revision=revision):
        one(parcel.card.encode(), CARD, "A card, from what lies here")
    one(parcel.folder / parcel.last, parcel.last, f"{parcel.last}: it is whole")


def _data_set(what: str, named: Repository, settings: PushSettings) -> Parcel:
    folder = Folder(what)
    if not folder.is_local:
        raise RequestError(f"WHAT {what}: it must lie on a disk to be sent; copy it here first")
    manifest = read_manifest(folder)
    there = {Path(name).name for name in folder.sizes("shards")}
    for line in manifest.shards:
        if not {f"{line.name}.tar", f"{line.name}.json"} <= there:
            raise DataError(f"{what}: shard {line.name} is not there; `stillreel repair {what}` makes it anew")
    card = data_card(Repository(named.name, "dataset"), manifest, settings.license)
    return Parcel(Path(folder.path), "dataset", ("plan-*.parquet", "shards/*"), MANIFEST, (), card)


def _model(what: str, named: Repository, settings: PushSettings) -> Parcel:
    folder = Path(model_folder(what)).expanduser()
    if not (folder / CONFIG).is_file():
        raise RequestError(
            f"WHAT {what}: neither a finished data set of stillreel's, nor a model, nor the OUT of a run"
        )
    with damage_of(f"{folder / CONFIG} is damaged"):
        config = parse_json((folder / CONFIG).read_bytes())
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise RequestError(
            f"WHAT {what} is no model of stillreel's; `stillreel import-checkpoint {what} OUT` makes it one"
        )
    run = folder.parent if folder.name == FINAL else folder  # results are the run's, or were put beside the model
    beside = [file for file in (run / RESULTS,) if file.is_file()]
    results = [read_results(str(file)) for file in beside]
    card = model_card(Repository(named.name, "model"), config, results, settings.license)
    return Parcel(folder, "model", (WEIGHTS, "report.txt"), CONFIG, beside, card)
