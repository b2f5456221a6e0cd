"""Does finetuning work from end to end on real clips? By the commands that people type, with a tiny model from nothing, on a CPU.

    python -m benchmarks.finetuning VIDEOS WORK [what=captions,gestures] [towers=CHECKPOINT] [modules=mean,tdb,stan]
        [folds=4] [tested=4] [key=value ...]

VIDEOS is a folder of clips with labels.csv: `file`, `label` and `all_captions`, a JSON list. What is trained goes to WORK, where
a second call goes on; key=value goes to `finetune`. Nothing is pinned: a run has all cores.

captions    The clips of msrvtt, msvd and panda70m with their own captions; every fifth clip is held out. Their frames are
            stored, a model is trained on them, once undisturbed, and once killed (SIGKILL) at its first checkpoint and run again.
            Told: whether both end in the same weights, to the bit; R@1 on the training clips, which it should know by heart;
            and the table of the held-out ones, which it cannot know: some fifty clips teach a random model nothing.
gestures    The clips of hand_landmarks_h264 by their eight classes, which the motion alone tells apart, in `folds` parts; the
            first `tested` of these are each tested by models that have seen all the others. For each module, with frames in
            order and shuffled (in training and in the test): top-1 of all tested clips, a 95 % interval, and the paired
            difference of both. Random towers collapse on these pictures, thin lines on black, and trained ones do at the rates
            of the other parts: give those of a demo's model.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stillreel.pretrain.evaluation import Ranks, compare, intervals

CAPTIONED = ("msrvtt", "msvd", "panda70m")
GESTURES = "hand_landmarks_h264"
ORDERS = {"in order": "kept", "shuffled": "shuffled"}
_HELD_OUT = 5  # every so many-th
_CAPTIONS = ("frames=4", "epochs=40", "optimizer.warmup_steps=50", "save_every=200", "log_every=50")
_GESTURES = (
    *("frames=12", "epochs=60", "prompt={}", "objective.infonce=0", "objective.classes=1", "model.stan.depth=2"),
    *("optimizer.lr=3e-5", "optimizer.lr_new=1e-3", "optimizer.warmup_steps=100", "save_every=10000"),
    "log_every=100",
)


def main(words: list[str]) -> None:
    videos, work = (Path(word).resolve() for word in words if "=" not in word)
    options = dict(word.split("=", 1) for word in words if "=" in word)
    what = options.pop("what", "captions,gestures").split(",")
    modules = options.pop("modules", "mean,tdb,stan").split(",")
    folds = int(options.pop("folds", 4))
    tested = int(options.pop("tested", folds))
    towers = options.pop("towers", "")
    more = [f"{key}={value}" for key, value in options.items()]
    with (videos / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if "captions" in what:
        captions(videos, work / "captions", rows, more)
    if "gestures" in what:
        more += [f"model.towers.pretrained={towers}"] if towers else []
        gestures(videos, work / "gestures", rows, modules, (folds, tested), more)


def captions(videos: Path, work: Path, rows: Sequence[dict[str, str]], more: Sequence[str]) -> None:
    clips = [row for row in rows if row["file"].partition("/")[0] in CAPTIONED]
    told = [
        {
            "video": row["file"],
            "captions": json.loads(row["all_captions"]),
            "split": "test" if number % _HELD_OUT == _HELD_OUT - 1 else "train",
        }
        for number, row in enumerate(clips)
    ]
    work.mkdir(parents=True, exist_ok=True)
    (work / "captions.json").write_text(json.dumps(told))
    common = ["folder", "preset=tiny", "threads=1", f"data={work}", *given(_CAPTIONS, more)]
    stored = store(videos, work, common)
    train = ["finetune", *common, f"prepared={stored}"]
    begin = time.monotonic()
    table = run([*train, f"out={work / 'whole'}"])
    seconds = time.monotonic() - begin
    if not (work / "killed" / "results.json").exists():
        kill_at_checkpoint([*train, f"out={work / 'killed'}"], work / "killed")
    run([*train, f"out={work / 'killed'}"])
    whole, killed = (load_file(work / name / "final" / "model.safetensors") for name in ("whole", "killed"))
    same = all(np.array_equal(whole[name], killed[name]) for name in whole)
    known = [word for word in common if word.partition("=")[0] in ("folder", "preset", "threads", "data", "frames")]
    run(
        [
            "evaluate",
            *known,
            f"prepared={stored}",
            f"checkpoint={work / 'whole'}",
            "split=train",
            f"out={work / 'train'}",
        ]
    )
    metrics = json.loads((work / "train" / "results.json").read_text())["metrics"]
    print(
        f"captions: {len(clips)} clips, {sum(one['split'] == 'train' for one in told)} of them trained on, in {seconds:.0f} s"
    )
    print(f"killed at its first checkpoint and run again: the weights are {'the same' if same else 'OTHERS'}")
    print(f"training clips: R@1 {metrics['t2v_r1']:.1f} text to video, {metrics['v2t_r1']:.1f} video to text")
    print(f"held-out clips, of which such a model can know nothing:\n{table}", flush=True)


def kill_at_checkpoint(words: Sequence[str], out: Path) -> None:
    """Run until the first checkpoint is there, and some steps of the next; then kill it and its children."""
    process = subprocess.Popen(
        command(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not list(out.glob("checkpoints/step-*")):
        if process.poll() is not None:
            raise SystemExit("it ended before its first checkpoint")
        time.sleep(0.05)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def gestures(
    videos: Path,
    work: Path,
    rows: Sequence[dict[str, str]],
    modules: Sequence[str],
    parts_and_tested: tuple[int, int],
    more: Sequence[str],
) -> None:
    folds, tested = parts_and_tested
    clips = [row for row in rows if row["file"].startswith(GESTURES)]
    classes = Counter(row["label"] for row in clips)
    parts = list(stratified(clips, folds))
    print(
        f"gestures: {len(clips)} clips of {len(classes)} classes; the largest has {max(classes.values()) / len(clips):.1%}"
    )
    for fold in range(folds):
        home = work / f"fold-{fold}"
        home.mkdir(parents=True, exist_ok=True)
        uses = ("test" if part == fold else "train" for part in parts)
        lines = [f"{row['file']}\t{row['label']}\t{use}" for row, use in zip(clips, uses, strict=True)]
        (home / "labels.tsv").write_text("\n".join(["video\tlabel\tsplit", *lines, ""]))
    common = ["folder", "preset=tiny", "threads=1", *given(_GESTURES, more)]
    stored = store(videos, work, [*common, f"data={work / 'fold-0'}"])  # of all clips: any part may be the test
    print(f"{'module':<8}{'frames':<12}{'top-1':>7}{'95 %':>15}{'s a run':>9}", flush=True)
    for module in modules:
        found = {}
        for order, setting in ORDERS.items():
            begin = time.monotonic()
            found[order] = pooled(work, module, setting, [*common, f"prepared={stored}"], tested)
            low, high = intervals(found[order], (1,))["r1"].low, intervals(found[order], (1,))["r1"].high
            top = 100 * found[order].hits(1).mean()
            seconds = (time.monotonic() - begin) / tested
            print(f"{module:<8}{order:<12}{top:>7.1f}{f'{low:.1f} to {high:.1f}':>15}{seconds:>9.0f}", flush=True)
        one = compare(found["shuffled"], found["in order"], (1,))["r1"]
        low, high = one.interval
        print(f"{'':8}in order less shuffled: {one.value:+.1f} ({low:+.1f} to {high:+.1f}), p {one.p:.4f}", flush=True)


def pooled(work: Path, module: str, order: str, common: Sequence[str], tested: int) -> Ranks:
    """The rank of every clip's class, each from the model that has not seen the clip."""
    values: list[float] = []
    items = 0
    for fold in range(tested):
        home = work / f"fold-{fold}"
        out = home / f"{module}-{order}"
        if not (out / "results.json").exists():
            run(["finetune", *common, f"data={home}", f"model.temporal={module}", f"video.order={order}", f"out={out}"])
        (row,) = json.loads((out / "results.json").read_text())["rows"]
        values += row["ranks"]
        items = row["items"]
    count = len(values)
    return Ranks(np.array(values), np.zeros(count, np.bool_), np.arange(count), items)


def stratified(clips: Sequence[dict[str, str]], folds: int) -> Iterator[int]:
    """Which part each clip is in: those of a class in turn."""
    seen: Counter[str] = Counter()
    for row in clips:
        yield seen[row["label"]] % folds
        seen[row["label"]] += 1


def store(videos: Path, work: Path, common: Sequence[str]) -> Path:
    """Frames of all clips, stored once."""
    out = work / "frames"
    if not (out / "manifest.json").exists():
        run(["finetune", *common, f"videos={videos}", "prepare=true", f"out={out}"])
    return out


def given(usual: Sequence[str], more: Sequence[str]) -> list[str]:
    """Settings, of which those in `more` overrule the usual ones."""
    values = dict(word.split("=", 1) for word in (*usual, *more))
    return [f"{key}={value}" for key, value in values.items()]


def run(words: Sequence[str]) -> str:
    """What a command prints; SystemExit with what it said where it failed."""
    done = subprocess.run(command(words), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout.strip()


def command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "stillreel", *words, *(["progress=lines"] if words[0] == "finetune" else [])]


if __name__ == "__main__":
    main(sys.argv[1:])
