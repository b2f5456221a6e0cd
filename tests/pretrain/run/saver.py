"""Saves in processes of their own, so that they can be killed, and in file systems that are full.

python -m tests.pretrain.run.saver kill OUT TRIALS      prints, a line a trial, what a killed saver left
python -m tests.pretrain.run.saver full OUT             saves until it cannot, and prints what is said and left
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from stillreel.configs import DataError
from stillreel.pretrain.model.checkpoint import load_model
from stillreel.pretrain.run.checkpoint import open_checkpoint, remove_unfinished, step_name, steps_in
from stillreel.pretrain.run.folder import find_latest
from stillreel.pretrain.run.snapshot import take_snapshot
from tests.pretrain.run.making import BINDING, folder_at, saved_steps, state_at, toy_settings, toy_task


def kill_savers(out: Path, trials: int) -> None:
    dice = random.Random(trials)
    task, optimizer = toy_task()
    snapshot = take_snapshot(task, optimizer)
    home = out / "checkpoints"
    settings = toy_settings(keep_last=2)
    with folder_at(out, settings) as folder:
        folder.begin(settings, BINDING)
        start = time.monotonic()
        folder.save(task.model, snapshot, state_at(1))
        seconds = time.monotonic() - start
    for _ in range(trials):
        before = find_latest(home)
        assert before is not None
        remove_unfinished(home)  # so that what is seen below is the new saver's
        child = os.fork()
        if not child:
            with folder_at(out, settings) as folder:
                found = folder.begin(settings, BINDING)
                assert found is not None
                step = found.step
                while True:
                    step += 1
                    folder.save(task.model, snapshot, state_at(step))
        while not (home.is_dir() and any(name.startswith(".") for name in saved_steps(out))):
            time.sleep(0.0005)
        time.sleep(dice.uniform(0.0, 1.5 * seconds))  # in the save that has begun, or a little later
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        parts = [name for name in saved_steps(out) if name.startswith(".")]
        whole = [open_checkpoint(home / step_name(step)).step for step in steps_in(home)]
        load_model(home / step_name(whole[-1]))
        print(json.dumps({"before": before.step, "whole": whole, "parts": parts}), flush=True)
    remove_unfinished(home)


def fill_disk(out: Path) -> None:
    task, optimizer = toy_task()
    snapshot = take_snapshot(task, optimizer, {"more": {"weight": torch.ones(250_000)}})
    settings = toy_settings(keep_last=9)
    with folder_at(out, settings) as folder:
        folder.begin(settings, BINDING)
        step, error = 0, ""
        while not error and step < 50:
            step += 1
            try:
                folder.save(task.model, snapshot, state_at(step))
            except DataError as full:
                error = str(full)
        left = saved_steps(out)
        whole = [open_checkpoint(out / "checkpoints" / name).step for name in left]
        (out / "room").unlink(missing_ok=True)
        folder.save(task.model, snapshot, state_at(step))
        again = open_checkpoint(out / "checkpoints" / step_name(step)).step
    print(json.dumps({"needed": snapshot.nbytes, "error": error, "left": left, "whole": whole, "again": again}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "kill":
        kill_savers(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        fill_disk(Path(sys.argv[2]))
