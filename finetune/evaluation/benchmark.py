"""A split of a benchmark as the one evaluator is asked of it: its clips, read from videos or a store, and its protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, product

import torch
from torch.utils.data import Dataset

from stillreel.configs import RequestError
from stillreel.configs.finetune import ProtocolSettings
from stillreel.configs.prompts import templates_of
from stillreel.configs.video import VideoSettings
from stillreel.finetune.benchmarks import Located, Split, SplitName
from stillreel.finetune.data.clips import Clip, ClipSource, empty_clips
from stillreel.finetune.data.loader import class_text, clips_of, instants_of
from stillreel.finetune.data.store import FrameStore, open_source
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.data.tokens import Tokenizer, count_cut
from stillreel.pretrain.data.workers import load_batches
from stillreel.pretrain.evaluation import EvalBatch, EvalProtocol, Evaluator, Matches
from stillreel.pretrain.video import VideoError, View
from stillreel.shards.stream.order import permutation


def benchmark_evaluator(
    located: Located,
    split: SplitName,
    settings: ProtocolSettings,
    *,
    tokenizer: Tokenizer,
    together: Together,
    batch: int = 32,
    workers: int = 0,
    store: FrameStore | None = None,
    selection: str = "",
) -> Evaluator:
    """`batch` clips are encoded at once on a rank, by `workers` that read; `tokenizer` is the model's own, by which texts that it
    cuts are counted; `selection` says how the model was chosen, if it was: "on validation", "last step".

    RequestError where a querybank is asked for and there are no training captions, or options where there are none.
    """
    views = settings.views
    if views.crops > 1 and settings.video.resize != "shortest":
        raise RequestError(
            f"views.crops={views.crops} takes parts along the longer side, and video.resize={settings.video.resize} shows all of "
            "a frame at once; set one of them otherwise"
        )
    places = [0.0, 0.5, 1.0] if views.crops == 3 else [0.5]
    chosen = [View(*one) for one in product(instants_of(views), places)]
    clips = [clip._replace(view=view) for clip in clips_of(located, split) for view in chosen]
    batch = max(batch // len(places), 1) * len(places)  # crops of one clip are read together
    reader = BenchmarkClips(clips, settings.video_settings(), batch, workers, store)
    protocol = benchmark_protocol(located, split, settings, tokenizer, len(chosen), selection)
    return Evaluator(reader, protocol, together=together)


def benchmark_protocol(
    located: Located,
    split: SplitName,
    settings: ProtocolSettings,
    tokenizer: Tokenizer,
    views: int = 1,
    selection: str = "",
) -> EvalProtocol:
    """What a split is asked: each caption for its video, each video for its class, or for the right one of its options."""
    benchmark, videos = located.benchmark, located.benchmark.splits[split].videos
    templates = templates_of(settings.prompt)
    numbers, task = torch.arange(len(videos)), benchmark.protocol.task
    retrieval = task == "retrieval"
    if task == "choice" and any(one.label is None for one in videos):
        raise RequestError(
            f"split={split}: it has captions and no options; {benchmark.protocol.title} is asked of its test"
        )
    if task != "recognition":
        texts = [caption for one in videos for caption in one.captions]
        captions = numbers.repeat_interleave(torch.tensor([len(one.captions) for one in videos]))
        if task == "choice":  # of options those that are right are their video's
            right = [number == one.label for one in videos for number in range(len(one.captions))]
            captions = captions.where(torch.tensor(right), -1)
        matches = Matches(captions, numbers)
    else:
        texts = [class_text(label, template) for label in benchmark.labels for template in templates]
        matches = Matches(torch.arange(len(benchmark.labels)), torch.tensor([one.label for one in videos]))
    cut = count_cut(texts, settings.context_length, tokenizer)
    return EvalProtocol(
        name=f"{split} split",
        context_length=settings.context_length,
        max_bad=settings.max_bad,
        max_bad_run=settings.max_bad_run,
        task=task,
        texts=texts,
        matches=matches,
        videos=[one.id for one in videos],
        missing=located.missing.get(split, ()),
        views=views,
        dual_softmax=settings.dual_softmax,
        querybank=_bank(benchmark.splits.get("train"), settings.querybank) if retrieval and settings.querybank else (),
        prompts=len(templates) if task == "recognition" else 1,
        cut=cut,
        described=_described(
            located, split, settings, selection, f" ({cut:,} of {len(texts):,} texts cut)" if cut else ""
        ),
    )


class BenchmarkClips(Dataset[EvalBatch]):
    """Batch k of some clips: those from k * batch on. Pure, so that any process may read any batch."""

    def __init__(
        self, clips: Sequence[Clip], settings: VideoSettings, batch: int, workers: int, store: FrameStore | None
    ) -> None:
        assert batch > 0
        self.count, self.batch = len(clips), batch
        self._clips, self._settings, self._workers, self._store = clips, settings, workers, store
        self._source: ClipSource | None = None

    def read(self, numbers: range, _device: torch.device) -> Iterator[EvalBatch]:
        return load_batches(self, order=numbers, workers=self._workers)

    def blank(self) -> EvalBatch:
        return EvalBatch(*empty_clips(1, self._settings), [False], [])

    def __getitem__(self, number: int) -> EvalBatch:
        clips = self._clips[number * self.batch : (number + 1) * self.batch]
        frames, mask = empty_clips(len(clips), self._settings)
        self._source = self._source or open_source(self._settings, self._store)  # in the process that reads
        whole: list[bool] = []
        troubles: list[str] = []
        for _, crops in groupby(clips, lambda clip: clip._replace(view=clip.view._replace(place=0.5))):
            alike = list(crops)
            try:
                read = self._source.read_crops(alike)
                for row, clip in enumerate(read, len(whole)):
                    frames[row], mask[row] = torch.from_numpy(clip.frames), torch.from_numpy(clip.mask)
                troubles += [f"{alike[0].file}: {flaw}" for flaw in read[0].flaws]
                whole += [True] * len(read)
            except VideoError as trouble:
                troubles.append(str(trouble))
                whole += [False] * len(alike)
        return EvalBatch(frames, mask, whole, troubles)


def _bank(train: Split | None, count: int) -> list[str]:
    """Training captions, drawn."""
    captions = [caption for one in train.videos for caption in one.captions] if train else []
    if not captions:
        raise RequestError(f"querybank={count}: no training captions were found; give their files, or 0")
    chosen = permutation(len(captions), 0, "querybank")[:count]
    return [captions[number] for number in sorted(chosen.tolist())]


def _described(located: Located, split: SplitName, settings: ProtocolSettings, selection: str, cut: str) -> str:
    video, views = settings.video_settings(), settings.views
    shuffled = ", shuffled" if video.order == "shuffled" else ""
    how = "" if video.resize == "shortest" else f" ({video.resize})"
    how += "" if video.interpolation == "bicubic" else f", {video.interpolation}"
    seen = f"{video.frames} frames by {video.sampler}{shuffled}, {video.size} px{how}, {settings.context_length} tokens{cut}"
    asked = len(templates_of(settings.prompt))
    if asked > 1 and located.benchmark.protocol.task == "recognition":
        seen += f", {asked} prompts a class"
    many = f", {views.segments} x {views.crops} views" if views.segments * views.crops > 1 else ""
    chosen = f"; selection: {selection}" if selection else ""
    return f"{located.describe(split)}; {seen}{many}{chosen}"
