"""Shards made by Ray, on this machine or on a cluster. Ray is imported here and where it runs, and only when it is asked for.

Attempts are for what is wrong with a shard. A host that ends (an autoscaler's, a spot's, `ray stop`, no power) and one that is
ill (see `hosts`) spend none: what ran there goes elsewhere, and each such host is named once.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from stillreel.configs import DataError, Interrupted, RequestError
from stillreel.configs.build import TaskSettings
from stillreel.shards.build import errand as errands
from stillreel.shards.build.errand import BOARD, Place, run_errand
from stillreel.shards.build.executors import Executor, Finished, MakeShard, Outcome, ShardTask
from stillreel.shards.build.hosts import Proof, leave_token, why_ill
from stillreel.shards.build.ray_start import HeadWatch, leave_ray, start_ray

_CALLS_PER_WORKER = 64  # then a fresh process takes over, so that no leak of a decoder grows for days
_LOOK_S = 5.0  # between two looks at the hosts; 1 s while it is not known whether a worker died, or its host
_VERDICT_S = 10.0  # a host that is stopped ends its workers first, and is gone a moment later
_HOSTS_ENDED = 10  # under one shard; from then on it may be the shard that ends them, and each costs an attempt
_NOBODY_S = 600.0
_ALL_OF_IT = "finished shards are kept. Run the same command again to go on"

_log = logging.getLogger(__name__)


class Suspect(NamedTuple):
    """A task whose worker died, of which it is not known yet whether its host did."""

    task: ShardTask
    place: Place | None
    error: BaseException
    until: float


class OnRay(Executor):
    """Makes each shard in a Ray task, on a private local Ray or on a cluster."""

    def __init__(
        self,
        make_shard: MakeShard,
        address: str,
        workers: int,
        proof: Proof,
        need: TaskSettings,
        finished: Finished,
    ) -> None:
        self._ray = start_ray(address, math.ceil(workers * need.cpus))
        self._head = HeadWatch(self._ray, address)
        self._is_private = address == "local"
        # On a private Ray the number of workers is its number of CPUs; on a cluster it is a bound of ours.
        self._bound = 0 if self._is_private else workers
        self._make_shard = make_shard
        self._proof = proof
        self._finished = finished
        self._need = need.options()
        self._run = os.urandom(8).hex()
        self._running: dict[Any, ShardTask] = {}
        self._suspects: list[Suspect] = []
        self._settled: list[Outcome] = []
        self._ended: Counter[tuple[int, int]] = Counter()  # hosts under a shard
        self._ill: dict[str, tuple[str, str]] = {}  # by node: which host, and why
        self._told: set[str] = set()  # nodes whose end is
        self._nodes: dict[str, Any] = {}
        self._looked, self._worked = -math.inf, time.monotonic()
        self._ray.cloudpickle.register_pickle_by_value(errands)
        self._remote = self._bind()
        self._count_hosts()
        if self._is_private and not self._slots():
            leave_ray(self._ray, self._head)
            raise RequestError(f"task: this machine has no room for a shard's task ({self._needed()})")

    def _bind(self) -> Any:
        """What is called for each shard. Attempts are counted by the driver, so Ray must not retry on its own."""
        others = {"ray.io/node-id": f"!in({','.join(sorted(self._ill))})"}
        where = {"label_selector": others} if self._ill else {}
        return self._ray.remote(max_retries=0, max_calls=_CALLS_PER_WORKER, **where, **self._need)(run_errand)

    def __exit__(self, *_: object) -> None:
        # Ray ends the workers of a driver that leaves. Cancelling their tasks first would be a race: one that completes
        # meanwhile fails a check in Ray's core, which takes the driver down with it.
        leave_ray(self._ray, self._head)

    @property
    def capacity(self) -> int:
        """One task more than can run keeps a worker from waiting for the driver. A cluster may grow meanwhile."""
        return self._bound or self._slots() + 1

    @property
    def busy(self) -> int:
        return len(self._running) + len(self._suspects) + len(self._settled)

    def submit(self, task: ShardTask) -> None:
        errand = pickle.dumps((self._proof, self._make_shard, task))
        self._running[self._remote.remote(self._board(task), errand)] = task

    def wait(self, seconds: float) -> Outcome | None:
        self._head.check()
        if self._head.answers and time.monotonic() - self._looked > (1.0 if self._suspects else _LOOK_S):
            self._look_at_hosts()
        if self._settled:
            return self._settled.pop()
        if (judged := self._judge()) is not None:
            return judged
        if not self._running:
            time.sleep(min(seconds, 0.2))
            return None
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return self._take(ready[0]) if ready else None

    def _take(self, reference: Any) -> Outcome | None:
        task = self._running.pop(reference)
        known = self._ray.exceptions
        try:
            place, kind, what = self._ray.get(reference)
        except known.RayTaskError as error:
            return Outcome(task, None, error.cause if isinstance(error.cause, Exception) else error)
        except (known.NodeDiedError, known.LocalRayletDiedError) as error:
            return self._go_elsewhere(task, self._place_of(task), error)
        except (known.WorkerCrashedError, known.OutOfMemoryError) as error:
            is_short = isinstance(error, known.OutOfMemoryError)  # of memory, which is worth waiting for
            why = _short_of_memory(error) if is_short else error
            suspect = Suspect(task, self._place_of(task), why, time.monotonic() + _VERDICT_S)
            if self._is_private and not is_short:
                return self._died(suspect)
            self._suspects.append(suspect)
            return None
        except known.RayError as error:
            place_known = self._place_of(task)
            return Outcome(task, None, error, host=str(place_known or ""))
        host = Place(*place)
        if kind == "ill":
            return self._leave_out(task, host, what)
        if kind == "taken back":  # by nobody, as this is waited for: its note was asked for twice
            self._forget_place(task)
            self.submit(task)
            return None
        if kind == "failed":
            return Outcome(task, None, what, host=str(host))
        self._ended.pop((task.plan, task.shard), None)
        return Outcome(task, what, None, host=str(host))

    def _leave_out(self, task: ShardTask, host: Place, why: str) -> Outcome | None:
        """No more work for a host that does not see what the driver sees; its shard goes elsewhere."""
        if here := why_ill(self._proof):
            leave_token(self._proof)
            return Outcome(task, None, DataError(f"here as there {here.removeprefix('it ')}"), host=str(host))
        if host.node not in self._ill:
            self._ill[host.node] = str(host), why
            _log.warning(f"{host} is left out: {why}. Its shards go elsewhere")
            self._remote = self._bind()
            self._count_hosts()
        if not self._slots():
            raise DataError(
                f"no host is left that can make shards. {'; '.join(map(': '.join, self._ill.values()))}. Mend them; finished "
                "shards are kept: run the same command again to go on"
            )
        self.submit(task)
        return None

    def _judge(self) -> Outcome | None:
        """Of a suspect whose time is up, or whose host has ended."""
        for at, suspect in enumerate(self._suspects):
            place = suspect.place
            if place is not None and not self._is_alive(place.node):
                del self._suspects[at]
                return self._go_elsewhere(suspect.task, place, suspect.error)
            if time.monotonic() > suspect.until or place is None:
                del self._suspects[at]
                return self._died(suspect)
        return None

    def _died(self, suspect: Suspect) -> Outcome:
        self._forget_place(suspect.task)
        return Outcome(suspect.task, None, suspect.error, died=True, host=str(suspect.place or ""))

    def _go_elsewhere(self, task: ShardTask, place: Place | None, error: BaseException) -> Outcome | None:
        """A host ended under a shard, which is made by another and has lost no attempt, unless too many have."""
        if place is not None:
            self._forget_place(task)
        self._ended[task.plan, task.shard] += 1
        if place is not None and place.node not in self._told:
            self._told.add(place.node)
            why = self._nodes.get(place.node, {}).get("DeathReasonMessage") or "it no longer answers"
            _log.warning(f"{place} has ended ({why}). Its shards go elsewhere, and have lost no attempt")
        if (made := self._finished(task)) is not None:
            return Outcome(task, made, None, host=str(place or ""))
        if self._ended[task.plan, task.shard] > _HOSTS_ENDED:
            return Outcome(task, None, error, died=True, host=str(place or ""))
        self.submit(task)
        return None

    def _look_at_hosts(self) -> None:
        """Which there are; and take back what ran on those that have ended, for which Ray itself may wait many minutes."""
        known = set(filter(self._is_alive, self._nodes))
        self._count_hosts()
        if not all(map(self._is_alive, known)):
            for reference, task in list(self._running.items()):
                place = self._place_of(task)
                # Who has begun nowhere may be on its way to a host that has ended.
                if self._take_back(reference, task) if place is None else not self._is_alive(place.node):
                    del self._running[reference]
                    if (outcome := self._go_elsewhere(task, place, ConnectionError("its host has ended"))) is not None:
                        self._settled.append(outcome)
        self._mind_emptiness()

    def _count_hosts(self) -> None:
        self._nodes = {one["NodeID"]: one for one in self._ray.nodes()}
        self._looked = time.monotonic()

    def _mind_emptiness(self) -> None:
        if self._slots():
            self._worked = time.monotonic()
            self._told.discard("")
        elif time.monotonic() - self._worked > _NOBODY_S:
            raise Interrupted(f"no host has had room for a shard for {_NOBODY_S / 60:.0f} minutes; {_ALL_OF_IT}", 75)
        elif "" not in self._told:
            self._told.add("")
            _log.warning(
                f"no host of the cluster has room for a shard's task ({self._needed()}); waiting for one that joins"
            )

    def _needed(self) -> str:
        return ", ".join(f"{name} {amount}" for name, amount in self._need.items() if amount)

    def _is_alive(self, node: str) -> bool:
        return bool(self._nodes.get(node, {}).get("Alive"))

    def _slots(self) -> int:
        """How many tasks fit on the hosts that are fit."""
        return sum(
            fitting(one["Resources"], self._need)
            for node, one in self._nodes.items()
            if one["Alive"] and node not in self._ill
        )

    @property
    def has_gpus(self) -> bool:
        return any(one["Alive"] and "GPU" in one["Resources"] for one in self._nodes.values())

    def left_out(self) -> Mapping[str, str]:
        return dict(self._ill.values())

    def whereabouts(self, plan: int, shard: int) -> str:
        waiting = [*(one.task for one in self._suspects), *(one.task for one in self._settled)]
        tasks = [*self._running.values(), *waiting]
        task = next(task for task in tasks if (task.plan, task.shard) == (plan, shard))
        place = self._place_of(task)
        return f"in process {place.process} of {place.host}" if place else "waiting for a worker"

    def _place_of(self, task: ShardTask) -> Place | None:
        from ray.experimental.internal_kv import _internal_kv_get

        told = _internal_kv_get(self._board(task), namespace=BOARD)
        return Place(*json.loads(told)) if told else None

    def _board(self, task: ShardTask) -> str:
        """Under which key the cluster's board says where a task runs, this time; other drivers' are others."""
        return f"{self._run} {task.out} {task.plan} {task.shard} {task.attempt} {self._ended[task.plan, task.shard]}"

    def _take_back(self, reference: Any, task: ShardTask) -> bool:
        """Of a task that has begun nowhere, as far as the board knows: whether from now on it cannot begin."""
        from ray.experimental.internal_kv import _internal_kv_put

        ready, _ = self._ray.wait([reference], timeout=0)
        return not ready and not _internal_kv_put(self._board(task), "", overwrite=False, namespace=BOARD)

    def _forget_place(self, task: ShardTask) -> None:
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self._board(task), namespace=BOARD)


def fitting(there: Mapping[str, float], need: Mapping[str, Any]) -> int:
    """How many tasks, or processes, that need this fit into a host's resources."""
    wanted = {"CPU": need["num_cpus"], "GPU": need.get("num_gpus", 0), "memory": need.get("memory", 0)} | need[
        "resources"
    ]
    return int(min(there.get(name, 0) // amount for name, amount in wanted.items() if amount))


def _short_of_memory(error: Exception) -> MemoryError:
    """What Ray says of it on a page, in a line."""
    told = re.search(r"was (\S+ used / \S+ limit)", str(error))
    return MemoryError(f"Ray has ended its worker, as memory is short there{f': {told[1]}' if told else ''}")
