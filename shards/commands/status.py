"""How far a build is, from OUT alone: `stillreel status OUT`, from any machine that sees it, while it runs and after.

Which shards are finished is read from the listing of their receipts; what happened on the way from events.jsonl, which a driver
that writes into a bucket puts every few seconds.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from stillreel.configs import DataError
from stillreel.configs.build import StatusSettings
from stillreel.configs.system.progress import amount, duration, tally
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.journal import Event, read_events
from stillreel.shards.format.manifest import MANIFEST
from stillreel.shards.format.plan import Plan, read_plans
from stillreel.shards.format.receipt import read_receipt, receipt_file

_SHOWN = 5


def run(out: str, settings: StatusSettings) -> int:
    """Print how far it is; 0, whatever that is, and 1 when shards have failed and nothing is at work on them."""
    folder = Folder(out)
    plans = read_plans(folder)
    if not plans:
        raise DataError(f"{folder.url} holds no plan: it is not a data set of stillreel's, or nothing is planned yet")
    status = collect(folder, plans, time.time())
    print(json.dumps(status, indent=1) if settings.json_output else render(status), flush=True)
    return 1 if status["failed"] and status["state"] != "running" else 0


def collect(folder: Folder, plans: Sequence[Plan], now: float) -> dict[str, Any]:
    """The figures of a build. `state` is finished, running, stopped, failed, or unfinished where no event says more. A driver
    that was killed is running as far as events know, so `last_event_seconds` says how long it has been silent."""
    names = [plan.shard_name(shard) for plan in plans for shard in plan.shard_numbers]
    listed = folder.sizes("shards")
    finished = [name for name in names if receipt_file(name) in listed]
    events = [_sound(event) for event in read_events(folder)]
    made = {event["shard"]: event for event in events if event["event"] == "shard"}
    lines = [made[name] if name in made else _of_receipt(folder, name) for name in finished]
    rejected: Counter[str] = Counter()
    for line in lines:
        rejected.update(line["rejected"])
    samples = sum(plan.samples for plan in plans)
    done = sum(line["planned"] for line in lines)
    rate = _rate(events)
    state = _state(folder, events, len(finished) == len(names))
    return {
        "out": folder.url,
        "state": state,
        "shards": {"finished": len(finished), "planned": len(names)},
        "samples": {
            "finished": done,
            "planned": samples,
            "written": sum(line["written"] for line in lines),
            "rejected": dict(rejected.most_common()),
        },
        "bytes": sum(line["bytes"] for line in lines),
        "samples_per_second": rate and round(rate, 1),
        "seconds_left": round((samples - done) / rate) if rate and state == "running" else None,
        "last_event_seconds": round(now - events[-1]["time"], 1) if events else None,
        "slowest": [
            {key: line[key] for key in ("shard", "seconds", "host")}
            for line in sorted(made.values(), key=lambda line: -line["seconds"])[:_SHOWN]
        ],
        "failed": _failed(events, set(finished)),
        "hosts": dict(Counter(line["host"] for line in made.values()).most_common()),
        "hosts_left_out": [
            {key: event[key] for key in ("host", "error")} for event in events if event["event"] == "host_left_out"
        ],
    }


def render(status: dict[str, Any]) -> str:
    """The figures in lines to read."""
    shards, samples = status["shards"], status["samples"]
    silent = status["last_event_seconds"]
    state = f"running; last heard of {duration(silent)} ago" if status["state"] == "running" else status["state"]
    lines = [
        f"{status['out']}: {state}",
        f"shards {shards['finished']:,} of {shards['planned']:,}, samples {samples['finished']:,} of "
        f"{samples['planned']:,}, {amount(status['bytes'])}",
    ]
    if status["samples_per_second"]:
        left = "" if status["seconds_left"] is None else f", {duration(status['seconds_left'])} left"
        lines.append(f"rate {status['samples_per_second']:,.1f} samples/s{left}")
    rejected = samples["rejected"]
    lines.append(f"rejected {sum(rejected.values()):,}{f' ({tally(rejected)})' if rejected else ''}")
    if status["slowest"]:
        told = (f"{one['shard']} {duration(one['seconds'])} on {one['host']}" for one in status["slowest"])
        lines.append(f"slowest  {', '.join(told)}")
    lines += [
        f"failed   {one['shard']}, {one['attempts']} attempts, last on {one['host'] or '?'}: {one['error']}"
        for one in status["failed"]
    ]
    lines += [f"left out {one['host']}: {one['error']}" for one in status["hosts_left_out"]]
    if shards["finished"] < shards["planned"] and status["state"] != "running":
        lines.append("run the command that began it again to go on")
    return "\n".join(lines)


def _sound(event: Event) -> Event:
    """An event with every field that is asked for, of its type: the file may be edited, and is of many versions."""
    kinds = {"time": 0.0, "shard": "", "host": "", "error": "", "how": "", "seconds": 0.0}
    counts = {"planned": 0, "written": 0, "bytes": 0, "attempt": 0}
    sound: Event = {"event": event["event"]}
    for key, default in {**kinds, **counts}.items():
        value = event.get(key, default)
        numeric = isinstance(default, int | float) and isinstance(value, int | float) and not isinstance(value, bool)
        sound[key] = value if numeric or (isinstance(value, str) and isinstance(default, str)) else default
    rejected = event.get("rejected")
    sound["rejected"] = (
        {str(reason): count for reason, count in rejected.items() if type(count) is int}
        if isinstance(rejected, dict)
        else {}
    )
    return sound


def _of_receipt(folder: Folder, name: str) -> Event:
    """What no event tells of a finished shard."""
    try:
        receipt = read_receipt(folder, name)
    except (FileNotFoundError, ValueError):  # made anew at this moment, or damaged: `verify` is for that
        return _sound({"event": "shard", "shard": name})
    counts = {"planned": receipt.planned, "written": receipt.written, "bytes": receipt.bytes}
    return _sound({"event": "shard", "shard": name, "rejected": receipt.rejected, **counts})


def _rate(events: Sequence[Event]) -> float | None:
    """Samples a second of the last run, over the shards that it has finished."""
    begun = [at for at, event in enumerate(events) if event["event"] == "started"]
    if not begun:
        return None
    run = events[begun[-1] :]
    shards = [event for event in run if event["event"] == "shard"]
    spent = shards[-1]["time"] - run[0]["time"] if shards else 0.0
    return float(sum(event["planned"] for event in shards) / spent) if spent > 0 else None


def _state(folder: Folder, events: Sequence[Event], whole: bool) -> str:
    last = events[-1] if events else None
    if last is not None and last["event"] != "ended":
        return "running"
    if whole and folder.exists(MANIFEST):
        return "finished"
    return str(last["how"]) if last is not None and last["how"] in ("stopped", "failed") else "unfinished"


def _failed(events: Sequence[Event], finished: set[str]) -> list[dict[str, Any]]:
    """Shards that are not there and of which an attempt failed: how many, and the last one's error and host."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "attempt_failed" and event["shard"] not in finished:
            before = found.get(event["shard"], {"attempts": 0})
            found[event["shard"]] = {
                "shard": event["shard"],
                "attempts": before["attempts"] + 1,
                "error": event["error"],
                "host": event["host"],
            }
    return list(found.values())
