"""The commands: which module runs each, which settings it has, and what of the environment it may miss. A table, and no more."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command: the module whose `run` does it, its settings in `configs`, its positional arguments (in brackets: may be
    left out; the last one with dots: as many as are given), a line about it; the folder of configs that has the preset which the
    first of them names; the folder of those that preset= names; and the settings of another command, whose presets it shares
    and whose own keys it leaves."""

    module: str
    settings: str
    positionals: tuple[str, ...]
    about: str
    presets: str = ""
    folder: str = "presets"
    beyond: str = ""


COMMANDS = {
    "demo": Command(
        "finetune.commands.demo",
        "build.DemoSettings",
        (),
        "everything below, small, on pictures drawn by code",
    ),
    "download": Command(
        "animate.commands.download",
        "build.DownloadSettings",
        ("TABLE", "OUT"),
        "image URLs and captions -> image shards, by img2dataset",
    ),
    "animate": Command(
        "animate.commands.animate",
        "build.AnimateSettings",
        ("SOURCE", "OUT"),
        "image shards or folders -> clip shards, by Ray",
    ),
    "verify": Command(
        "shards.commands.verify",
        "build.VerifySettings",
        ("OUT",),
        "prove that nothing is missing and every byte is as written",
    ),
    "repair": Command(
        "animate.commands.repair",
        "build.RepairSettings",
        ("OUT",),
        "make damaged, missing and failed shards anew, and no others",
    ),
    "status": Command(
        "shards.commands.status",
        "build.StatusSettings",
        ("OUT",),
        "how far a build is, and what failed: from any machine, while it runs and after",
    ),
    "preview": Command(
        "animate.commands.preview", "build.PreviewSettings", ("OUT",), "a page that shows what was made"
    ),
    "stats": Command("shards.commands.stats", "build.StatsSettings", ("OUT",), "count it"),
    "select": Command(
        "shards.commands.select",
        "select.SelectSettings",
        ("CLIPS", "OUT"),
        "some samples of finished data sets, or one of each duplicate -> a new one, without decoding",
    ),
    "reshard": Command(
        "shards.commands.reshard",
        "select.ReshardSettings",
        ("CLIPS", "OUT"),
        "finished data sets -> one, in shards of another size, without decoding",
    ),
    "catalog": Command(
        "shards.commands.catalog",
        "stream.CatalogSettings",
        ("TARS", "OUT"),
        "byte index of tars that stillreel did not write, kept beside them",
    ),
    "stream": Command(
        "pretrain.commands.stream",
        "stream.StreamSettings",
        ("DATA",),
        "what a run would read: keys=true the order, simulate=true the cost",
    ),
    "pretrain": Command(
        "pretrain.commands.pretrain",
        "pretrain.PretrainSettings",
        ("PRESET",),
        "clip shards -> a video-text model; also as torchrun -m stillreel pretrain",
        presets="pretrain",
    ),
    "finetune": Command(
        "finetune.commands.finetune",
        "finetune.FinetuneSettings",
        ("BENCHMARK",),
        "train on a benchmark, evaluate, print the table; also as torchrun -m stillreel finetune",
        folder="finetune",
    ),
    "evaluate": Command(
        "finetune.commands.evaluate",
        "finetune.EvaluateSettings",
        ("BENCHMARK",),
        "the table of a checkpoint, ours or a peer's; also as torchrun -m stillreel evaluate",
        folder="finetune",
        beyond="finetune.FinetuneSettings",
    ),
    "report": Command(
        "finetune.commands.report",
        "report.ReportSettings",
        ("RUN ...",),
        "a page about a run, or several side by side: curves, figures, differences, answers",
    ),
    "import-checkpoint": Command(
        "finetune.commands.import_checkpoint",
        "exchange.ImportSettings",
        ("FILE", "OUT"),
        "a checkpoint of CLIP4Clip, CLIP2Video, STAN, OpenAI, open_clip or HF -> one of ours",
    ),
    "export": Command(
        "finetune.commands.export",
        "exchange.ExportSettings",
        ("CHECKPOINT", "OUT"),
        "a checkpoint of ours -> safetensors, and towers that open_clip loads",
    ),
    "push": Command(
        "finetune.commands.push",
        "exchange.PushSettings",
        ("WHAT", "REPO"),
        "a model or a data set of ours -> the Hugging Face hub, with a card",
    ),
    "pull": Command(
        "finetune.commands.pull",
        "exchange.PullSettings",
        ("REPO", "OUT"),
        "a model or a data set of ours from the Hugging Face hub",
    ),
    "index": Command(
        "finetune.commands.index",
        "search.IndexSettings",
        ("VIDEOS", "OUT"),
        "a folder of videos -> an index that is searched by text; run again, it follows the folder",
    ),
    "search": Command(
        "finetune.commands.search",
        "search.SearchSettings",
        ("INDEX", "[TEXT ...]"),
        "the videos that a text tells of, coarse to fine; also image=, video=, queries=FILE",
    ),
    "serve": Command(
        "finetune.commands.serve",
        "search.ServeSettings",
        ("INDEX",),
        "a page to search an index, for this machine's browser",
    ),
    "study": Command(
        "finetune.commands.study",
        "study.StudySettings",
        ("PRESET",),
        "the control grid: what does animating buy?",
        presets="study",
    ),
    "doctor": Command(
        "pretrain.commands.doctor",
        "doctor.DoctorSettings",
        (),
        "what this machine can do, what it lacks, and what a model costs on it",
    ),
}

# What a command may miss, and the extra that has it.
EXTRAS = {
    "torch": "train",
    "open_clip": "train",
    "safetensors": "train",
    "huggingface_hub": "train",
    "starlette": "serve",
    "uvicorn": "serve",
    "faiss": "faiss",
}

# What other programs call a command.
OTHER_NAMES = {
    "train": ("pretrain", "finetune"),
    "eval": ("evaluate",),
    "test": ("evaluate",),
    "validate": ("evaluate",),
    "build": ("animate",),
    "render": ("animate",),
    "import": ("import-checkpoint",),
    "convert": ("import-checkpoint", "export"),
    "query": ("search",),
    "filter": ("select",),
    "subset": ("select",),
    "split": ("select",),
    "dedup": ("select",),
    "deduplicate": ("select",),
    "merge": ("reshard", "select"),
    "upload": ("push",),
    "publish": ("push",),
    "fetch": ("pull", "download"),
}
