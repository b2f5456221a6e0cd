"""`stillreel reshard CLIPS OUT shard_size=N`: the same samples in shards of another size; of several data sets, in one."""

from __future__ import annotations

from stillreel.configs.select import ReshardSettings, SelectSettings
from stillreel.shards.commands import select


def run(clips: str, out: str, settings: ReshardSettings) -> int:
    """Copy all samples of CLIPS into OUT, or go on copying them; returns the exit code."""
    return select.run(clips, out, SelectSettings(**dict(settings)))
