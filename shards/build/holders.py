"""Processes on Ray that hold what is dear to open, a model on a GPU, for tasks to ask: on each host as many as have room there.

A host that joins gets its own. One that ends takes its own along, and whoever had asked them asks others: so what is asked must
be pure. One that cannot hold it, or has other library versions, is named once and left out.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stillreel.configs import DataError, Interrupted
from stillreel.shards.build.cluster import fitting
from stillreel.shards.build.journal import one_line
from stillreel.shards.build.libraries import other_versions

_LOOK_S = 5.0  # between two looks at the hosts
_PAUSE_S = 0.5  # before another one is asked, or the same that begins again
_PATIENCE_S = 60.0  # without one that has opened, before it is said; models are large
_NOBODY_S = 600.0
_DEATHS = 10  # of a process on a host that lives

_log = logging.getLogger(__name__)


class Unfit(Exception):
    """Why a host holds nothing: told by its holder, to the driver and to whoever asks before the driver has heard."""


class _Holder:
    """Runs as an actor. `opening`: the libraries' versions, and what opens it and returns the function that answers."""

    def __init__(self, opening: bytes) -> None:
        self._opening = opening
        self._held: Callable[..., Any] | None = None

    def open(self) -> Callable[..., Any]:
        if self._held is None:
            libraries, open_held = pickle.loads(self._opening)
            if other := other_versions(libraries):
                raise Unfit(f"it has other library versions than the driver: {other}")
            try:
                self._held = open_held()
            except Exception as error:  # whatever it is, another host may do better
                raise Unfit(one_line(error)) from None
        assert self._held is not None
        return self._held

    def is_open(self) -> bool:
        return self.open() is not None

    def answer(self, *question: Any) -> Any:
        return self.open()(*question)


class _Known(NamedTuple):
    """A holder as the driver knows it: its node by Ray's id, its host in words, and what is true when it has opened."""

    node: str
    host: str
    actor: Any
    is_open: Any


class Holders:
    """The driver's: `key` is what tasks find them by. `what` they hold, in words; `need`: options of Ray's for each."""

    def __init__(
        self,
        what: str,
        open_held: Callable[[], Callable[..., Any]],
        need: Mapping[str, Any],
        libraries: Mapping[str, str],
    ) -> None:
        import ray

        self._ray: Any = ray
        self._what, self._need = what, need
        self._opening = pickle.dumps((libraries, open_held))
        self.key = f"holder.{os.urandom(8).hex()}."
        self._holders: dict[str, _Known] = {}
        self._nodes: set[str] = set()  # that were looked at
        self._left_out: dict[str, str] = {}  # hosts, and why
        self._looked, self._held, self._is_told = -math.inf, time.monotonic(), False

    def look(self) -> None:
        """Let new hosts begin, and hear of those that failed. DataError where none is left, Interrupted where none comes."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        living = _named(self.key)  # before the hosts: who has ended with its host is not taken to have failed
        nodes = {one["NodeID"]: one for one in self._ray.nodes() if one["Alive"]}
        open_ones = 0
        for name, known in list(self._holders.items()):
            failed, is_open = self._hear(known)
            if known.node not in nodes:
                del self._holders[name]
            elif failed or name not in living:
                del self._holders[name]
                self._leave_out(known, failed or f"its process has ended {_DEATHS + 1} times")
            open_ones += is_open
        for node in nodes.keys() - self._nodes:
            self._begin(node, nodes[node])
        self._looked = time.monotonic()
        self._mind_emptiness(open_ones)

    def _begin(self, node: str, about: Mapping[str, Any]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._nodes.add(node)
        for number in range(fitting(about["Resources"], self._need)):
            name = f"{self.key}{node}.{number}"
            options = {
                "name": name,
                "max_restarts": _DEATHS,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node, False),
            }
            actor = self._ray.remote(**self._need, **options)(_Holder).remote(self._opening)
            host = f"{about['NodeManagerHostname']} ({about['NodeManagerAddress']})"
            self._holders[name] = _Known(node, host, actor, actor.is_open.remote())

    def _hear(self, known: _Known) -> tuple[str, bool]:
        """Why it has failed, or whether it has opened."""
        done, _ = self._ray.wait([known.is_open], timeout=0)
        try:
            return "", bool(done and self._ray.get(known.is_open))
        except self._ray.exceptions.RayTaskError as error:
            return str(error.cause), False
        except self._ray.exceptions.RayError as error:
            return one_line(error), False

    def _leave_out(self, known: _Known, why: str) -> None:
        self._ray.kill(known.actor)
        if known.host not in self._left_out:
            self._left_out[known.host] = why
            _log.warning(f"{known.host} does not hold {self._what}: {why}. Others do")

    def _mind_emptiness(self, open_ones: int) -> None:
        waited = time.monotonic() - self._held
        if open_ones:
            self._held, self._is_told = time.monotonic(), False
        elif self._left_out and not self._holders:
            named = "; ".join(map(": ".join, self._left_out.items()))
            raise DataError(
                f"no host is left that holds {self._what}. {named}. Mend them, and run the same command again"
            )
        elif waited > _NOBODY_S:
            raise Interrupted(
                f"no host has had room for {self._what} for {_NOBODY_S / 60:.0f} minutes; what is finished is kept. Run the same "
                "command again to go on",
                75,
            )
        elif waited > _PATIENCE_S and not self._is_told:
            self._is_told = True
            needed = ", ".join(f"{name} {amount}" for name, amount in self._need.items() if amount)
            _log.warning(f"no host of the cluster holds {self._what} yet, which needs {needed}; waiting for one")


class Asked:
    """A task's question to one of the holders, sent at once; the answer is waited for when it is wanted."""

    def __init__(self, key: str, turn: int, *question: Any) -> None:
        import ray

        self._ray, self._key, self._turn = ray, key, turn
        self._question = [ray.put(one) for one in question]
        self._coming = self._send()

    def answer(self) -> Any:
        """Waits, of whichever answers; the driver ends a run in which nobody will. Raises what the function raised."""
        known = self._ray.exceptions
        while True:
            try:
                return self._ray.get(self._coming)
            except known.RayTaskError as error:
                if not isinstance(error.cause, Unfit):
                    raise error.cause if isinstance(error.cause, Exception) else error from None
            except (known.RayActorError, known.ActorUnschedulableError, known.ObjectLostError, known.NodeDiedError):
                pass  # its process, or its host, has ended, maybe before it had begun again there
            time.sleep(_PAUSE_S)
            self._coming = self._send()

    def _send(self) -> Any:
        while True:
            if names := sorted(_named(self._key)):
                self._turn += 1
                try:
                    holder = self._ray.get_actor(names[self._turn % len(names)])
                except ValueError:
                    pass  # it has ended meanwhile
                else:
                    return holder.answer.remote(*self._question)
            time.sleep(_PAUSE_S)


def _named(key: str) -> set[str]:
    """Holders that live, or begin again."""
    from ray.util import list_named_actors

    return {name for name in list_named_actors() if name.startswith(key)}
