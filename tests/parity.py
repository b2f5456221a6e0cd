"""Our models against the numbers of the published codes: `python -m tests.parity FOLDER`.

FOLDER holds `<family>/<anything>.npz` with a json of the same stem: weights, inputs and outputs of a published model, as its
README says. Each file's weights go through `load_peer`; what comes out is compared with what the published code gave. A line
per comparison; the exit code is 1 on any miss. The family is read from the folder's name, everything else from the files.

    published     `faithful` as it was published: scores, losses, features, intermediates, gradient norms
    own mask      CLIP2Video with each mask on its own clip
    default       where the right behavior and the published one agree: captions end, no word has id 0 (Mug), and no padded word
                  wins `wti`'s maximum, which it does, with its 0, where all words of a frame are negative
    cut           the default on padded clips against `own_mask` on each clip cut to its own frames: padding is not seen
    fp16          the fp16 copy of the weights against the fp32 one: the same bits
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stillreel.pretrain.model import ModelSettings, PeerOptions, VideoTextModel, load_peer
from stillreel.pretrain.model.features import Frames, TextFeatures, VideoFeatures, unit
from stillreel.pretrain.model.losses import contrastive_loss, recognition_loss
from stillreel.pretrain.model.peers import FAMILIES
from stillreel.pretrain.model.temporal import Stan, TemporalDifference
from stillreel.pretrain.model.towers import encode_words

TIGHT = 1e-5
BRANCH = 1e-4  # STAN's tokens, whose values reach 83
GRADIENT = (1e-4, 1e-6)  # relative, or absolute


class Comparison(NamedTuple):
    """How far one of our numbers is from the published one, at most."""

    file: str
    what: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False for NaN

    @property
    def share(self) -> float:
        """Of the tolerance; a NaN is worse than anything."""
        error = self.error if self.error == self.error else float("inf")
        return error / self.tolerance if self.tolerance else error * float("inf") if error else 0.0

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "MISS"
        return f"{verdict} {self.error:9.2e} of {self.tolerance:7.1e}  {self.file}  {self.what}"


class Reference:
    """One npz and its json."""

    def __init__(self, path: Path) -> None:
        self.name = f"{path.parent.name}/{path.stem}"
        self.kind = path.parent.name
        self.about: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        with np.load(path) as arrays:
            self.arrays = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.comparisons: list[Comparison] = []

    @property
    def family(self) -> str:
        return next(family for family in ("clip4clip", "clip2video", "stan") if family in self.kind)

    def get(self, name: str) -> Tensor | None:
        return self.arrays.get(name)

    def weights(self, mode: str = "") -> dict[str, Tensor]:
        """The state dict; for Mug's weighted mode with the two layers that it needs beside it."""
        extra = ("drl/",) if mode == "wti" else ()
        return {
            name.partition("/")[2]: value for name, value in self.arrays.items() if name.startswith(("sd/", *extra))
        }

    def load(self, faithful: str, mode: str = "frame_token_simple") -> VideoTextModel:
        """The model, with the options that the json gives."""
        return load_peer(self.weights(mode), self.options(faithful, mode))

    def scores(self, model: VideoTextModel) -> Tensor:
        """Of the whole batch at once, as the published code mixes up the masks of whole batches."""
        return model.score(*self.video, *self.text, chunk=max(len(self.video[0]), len(self.text[0])))

    def options(self, faithful: str, mode: str = "frame_token_simple") -> PeerOptions:
        variant, config = self.about.get("variant", {}), self.about["config"]
        values: dict[str, Any] = {"family": self.family, "faithful": faithful, "mug": mode}
        values["head"] = "mug" if self.about.get("kind") == "mug" else "dot"
        values["cross_heads"] = self.about.get("cross_num_attention_heads", 0)
        if "tau" in config:
            values["temperature"] = config["tau"]
        if "center_weight" in variant:
            values["center_weight"] = variant["center_weight"]
        if variant.get("center_proj"):
            values["center_proj"] = variant["center_proj"]
        return PeerOptions.resolve(values)

    @property
    def video(self) -> tuple[Tensor, Tensor | None]:
        return self.arrays["in/video"], self.get("in/video_mask")

    @property
    def text(self) -> tuple[Tensor, Tensor | None]:
        """Captions with their mask, or class names without one."""
        classes = self.get("in/class_ids")
        return (self.arrays["in/input_ids"], self.get("in/attention_mask")) if classes is None else (classes, None)

    def compare(self, what: str, ours: Tensor, name: str, tolerance: float = TIGHT) -> None:
        """One of our tensors with the array of this name, where the file has it."""
        theirs = self.get(name)
        if theirs is not None:
            same_shape = ours.shape == theirs.shape
            error = (ours.double() - theirs.double()).abs() if same_shape else torch.tensor(torch.inf)
            if same_shape:  # a clip without frames scores NaN, theirs as ours
                error = error.masked_fill(ours.isnan() & theirs.isnan(), 0)
            self.note(f"{what}: {name}", error.max().item(), tolerance)

    def note(self, what: str, error: float, tolerance: float) -> None:
        self.comparisons.append(Comparison(self.name, what, error, tolerance))


def check(path: Path) -> list[Comparison]:
    """All comparisons of one file."""
    reference = Reference(path)
    {"clip4clip": check_clip4clip, "clip2video": check_clip2video, "stan": check_stan}[reference.family](reference)
    check_halves(reference)
    assert reference.comparisons, f"{path}: nothing to compare"
    return reference.comparisons


def check_clip4clip(reference: Reference) -> None:
    model = reference.load("peer")
    reference.compare("published", reference.scores(model), "out/sim")
    with torch.no_grad(), recording(model.head) as seen:
        frames, video, _ = features(reference, model)
        reference.compare("published", video.frames - frames.features, "mid/temporal")
        reference.compare("published", unit(video.frames), "mid/frames_normed")
        reference.compare("published", video.pooled, "mid/video_pooled")
        reference.compare("published", unit(video.pooled), "out/video_embedding")
        model.similarity(video, model.encode_text(*reference.text))
        if model.settings.head == "tight":
            reference.compare("published", seen["score"][0][0], "mid/cross_pooled")
    check_loss(reference, model, "out/loss", "grad_norm")
    check_default(reference, "out/sim")


def check_clip2video(reference: Reference) -> None:
    for faithful, suffix, losses in (("peer", "", "grad_norm"), ("own_mask", "_fixedmask", "grad_norm_fixedmask")):
        model, what = reference.load(faithful), "published" if faithful == "peer" else "own mask"
        scores = reference.scores(model)
        reference.compare(what, scores, f"out/sim{suffix}")
        if faithful == "own_mask":
            reference.compare(what, scores, "out/sim_per_video")
        with torch.no_grad():
            frames, video, text = features(reference, model)
            main, aligned = model.similarities(video, text)
            reference.compare(what, main, "out/sim_main" if faithful == "peer" else "out/sim_main_per_video")
            reference.compare(what, text.tokens, "out/text_token_features")
            if aligned is not None and video.aligned is not None and text.aligned is not None:
                reference.compare(what, contrastive_loss(aligned), f"out/loss_tab{suffix}")
                reference.compare(what, text.aligned, "mid/tab_sequence")
                if faithful == "peer":
                    reference.compare(what, aligned, "out/sim_tab_peer")
                    reference.compare(what, video.aligned, "mid/tab_visual")
            if faithful == "peer" and isinstance(model.temporal, TemporalDifference):
                tokens = model.temporal.expand(frames.features, frames.mask)
                for part, ours in zip(("tokens", "pos", "type", "mask"), tokens, strict=True):
                    wanted = reference.arrays[f"mid/tdb_{part}"]
                    reference.compare(what, ours.expand(wanted.shape), f"mid/tdb_{part}")
        check_loss(reference, model, f"out/loss{suffix}", losses)
    check_default(reference, "out/sim_fixedmask")


def check_stan(reference: Reference) -> None:
    model = reference.load("peer")
    with torch.no_grad(), recording(model.temporal) as seen:
        _, video, text = features(reference, model)
        if isinstance(model.temporal, Stan):
            reference.compare("published", video.frames, "out/frame_features")
        reference.compare("published", video.pooled, "out/video_features")
        hidden = text.tokens if model.settings.head == "mug" else encode_words(model.clip, reference.text[0])
        reference.compare("published", hidden, "out/text_tokens")
        if isinstance(model.temporal, Stan):
            for index in range(model.settings.stan.depth):
                (token, *_), after = seen[f"layers.{index}"]
                in_time = seen[f"layers.{index}.time"][1]
                reference.compare("published", flat(token, in_time), f"mid/temporal_{index}", BRANCH)
                reference.compare("published", flat(*after), f"mid/branch_{index}", BRANCH)
    scores = reference.scores(model)
    reference.compare("published", scores, "out/sim")
    reference.compare("published", model.logits(scores).T, "out/logits")
    for mode, published in (
        ("frame_token_simple", "mug_frame_token_simple"),
        ("frame_token", "mug_frame_token"),
        ("frame_text", "mug_frame_text"),
        ("wti", "drl_wti"),
    ):
        if reference.get(f"out/sim_{published}") is not None:
            by_default = agrees_by_default(reference, model.settings) and (mode != "wti" or no_padding_wins(reference))
            for faithful in ("peer", "no") if by_default else ("peer",):
                scores = reference.scores(reference.load(faithful, mode))
                reference.compare("published" if faithful == "peer" else "default", scores, f"out/sim_{published}")
    check_loss(reference, model, "out/loss", "grad_norm")
    check_default(reference, "out/sim")


def features(reference: Reference, model: VideoTextModel) -> tuple[Frames, VideoFeatures, TextFeatures]:
    """What a model makes of the inputs; the features that all families give are compared here."""
    frames, text = model.encode_frames(*reference.video), model.encode_text(*reference.text)
    if not isinstance(model.temporal, Stan):
        reference.compare("published", frames.features, "out/frame_features")
    reference.compare("published", text.pooled, "out/text_features")
    return frames, model.encode_video(*reference.video), text


def check_loss(reference: Reference, model: VideoTextModel, name: str, norms: str) -> None:
    """The loss, and the norm of its gradient for each published parameter."""
    if reference.get(name) is None:
        return
    labels = reference.get("in/labels")
    video = model.encode_video(*reference.video)
    if labels is None:
        loss = model.loss(video, model.encode_text(*reference.text))
    else:
        with torch.no_grad():  # STAN's recognition keeps its class features, without a gradient
            classes = model.encode_text(*reference.text)
        loss = recognition_loss(model.logits(model.similarity(video, classes)), labels)
    reference.compare("published", loss.detach(), name)
    loss.backward()
    place = FAMILIES[reference.family].place
    ours = {
        published: 0.0 if parameter.grad is None else part.norm().item()
        for name, parameter in model.named_parameters()
        for published, part in place(name).split(parameter if parameter.grad is None else parameter.grad).items()
    }
    relative, absolute = GRADIENT
    for published, norm in reference.about.get(norms, {}).items():
        error = abs(ours.get(published, float("inf")) - norm)
        reference.note(f"{norms}: {published}", error, max(relative * norm, absolute))


def check_default(reference: Reference, name: str) -> None:
    """The default: equal to the published scores where both agree, and blind to padding everywhere."""
    model, own_mask = reference.load("no"), reference.load("own_mask")
    scores = reference.scores(model)
    if not agrees_by_default(reference, model.settings):
        return
    frames, mask = reference.video
    leaks = isinstance(model.temporal, TemporalDifference)
    if mask is None or mask.bool().all() or not leaks:
        reference.compare("default", scores, name)
    if mask is None:
        return
    counts = mask.sum(dim=1).tolist()
    for index, count in enumerate(counts):
        if count > 0 and mask[index, :count].all():
            alone = own_mask.score(frames[index : index + 1, :count], None, *reference.text)
            error = (scores[:, index : index + 1] - alone).abs().max().item()
            reference.note(f"cut: clip {index} to its {count} of {mask.shape[1]} frames", error, TIGHT)


def agrees_by_default(reference: Reference, settings: ModelSettings) -> bool:
    """Whether every caption ends and, with Mug, no word within it has id 0: else the default is another, by design."""
    ids, mask = reference.text
    vocabulary = len(next(value for name, value in reference.arrays.items() if "token_embedding" in name))
    ended = bool((ids == vocabulary - 1).any(dim=1).all())
    return ended and (settings.head != "mug" or mask is None or bool(((ids != 0) == mask.bool()).all()))


def no_padding_wins(reference: Reference) -> bool:
    """Whether each frame has a word that it does not point away from, wherever a caption is padded.

    In the published maximum over words (`wti`) a padded word counts as a similarity of 0, which is the largest where all words
    of a frame are negative; by default padding is not seen, so there the two differ by design.
    """
    model = reference.load("no", "wti")
    with torch.no_grad():
        video, text = model.encode_video(*reference.video), model.encode_text(*reference.text)
        each = torch.einsum("awe,bte->abwt", unit(text.tokens), unit(video.frames))
        best = each.masked_fill(~text.mask[:, None, :, None], -torch.inf).amax(dim=2)  # (A, B, T)
    padded = ~text.mask.all(dim=1)
    return not ((best < 0) & video.mask & padded[:, None, None]).any()


def check_halves(reference: Reference) -> None:
    """An fp16 copy of weights that fp16 holds exactly gives the same bits."""
    wholes = {name: value.float() for name, value in reference.weights().items()}
    halves = {name: value.half() for name, value in wholes.items()}
    halves |= {name: value for name, value in wholes.items() if not torch.equal(halves[name].float(), value)}
    scores = [reference.scores(load_peer(one, reference.options("peer"))) for one in (halves, wholes)]
    reference.note("fp16: scores", (scores[0] - scores[1]).abs().max().item(), 0.0)


def flat(token: Tensor, patches: Tensor) -> Tensor:
    """STAN's own layout (B, 1 + L * T, D): the class token, then for each patch its frames."""
    return torch.cat([token[:, None], patches.transpose(1, 2).flatten(1, 2)], dim=1)


@contextmanager
def recording(module: nn.Module) -> Iterator[dict[str, tuple[Any, Any]]]:
    """Inputs and outputs of all modules inside one, by name, as of their last call."""
    seen: dict[str, tuple[Any, Any]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, inputs, output: seen.__setitem__(name, (inputs, output))

    handles = [one.register_forward_hook(keep(name)) for name, one in module.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def main(words: list[str]) -> int:
    folder = Path(words[0]) if len(words) == 1 else None
    paths = sorted(folder.glob("*/*.npz")) if folder else []
    if not paths:
        print("usage: python -m tests.parity FOLDER, which holds <family>/*.npz, each with its json", file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # the matrices are small, and a sum in one order is the same everywhere
    comparisons: list[Comparison] = []
    for path in paths:
        of_file = check(path)
        print("\n".join(map(str, of_file)), flush=True)
        comparisons += of_file
    worst = max(comparisons, key=lambda one: one.share)
    misses = sum(not one.passed for one in comparisons)
    print(f"\n{len(paths)} files, {len(comparisons)} comparisons, {misses} misses; the worst:\n{worst}")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
