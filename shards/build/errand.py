"""What a worker of Ray's is sent: it travels as code, so that also a host that has no stillreel, or another one, can answer."""

from __future__ import annotations

from typing import Any, NamedTuple

BOARD = "stillreel"  # name space of notes in Ray's key-value store


class Place(NamedTuple):
    """Where a task runs: Ray's id of the node, the host's name and address, and the process."""

    node: str
    host: str
    address: str
    process: int

    def __str__(self) -> str:
        return f"{self.host} ({self.address})"


def run_errand(key: str, errand: bytes) -> tuple[tuple[str, str, str, int], str, Any]:
    """Where it ran, and what came of it: "made" with a receipt, "failed" with an exception, or "ill" with why this host is. While
    it runs, the cluster's board says where, under `key`; where something stands there already, the driver has taken it back."""
    import json
    import os
    import pickle
    import socket

    import ray
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    node = ray.get_runtime_context().get_node_id()
    place = node, socket.gethostname(), str(ray.util.get_node_ip_address()), os.getpid()  # type: ignore[no-untyped-call]
    if _internal_kv_put(key, json.dumps(place), overwrite=False, namespace=BOARD):
        return place, "taken back", None
    try:
        try:
            from stillreel.shards.build.hosts import make_if_fit

            proof, make_shard, task = pickle.loads(errand)
        except Exception as error:
            return place, "ill", f"it cannot run stillreel as the driver does: {type(error).__name__}: {error}"
        kind, what = make_if_fit(proof, make_shard, task)
        if kind == "failed":
            try:
                pickle.loads(pickle.dumps(what))
            except Exception:
                what = RuntimeError(f"{type(what).__name__}: {what}")
        return place, kind, what
    finally:
        _internal_kv_del(key, namespace=BOARD)
