"""What a benchmark's command is asked to read: annotation files, and videos or the frames stored of them."""

from __future__ import annotations

from collections.abc import Collection

from stillreel.configs.finetune import ProtocolSettings
from stillreel.finetune.benchmarks import Opened, SplitName, Stored, open_benchmark
from stillreel.finetune.data.store import FrameStore, open_store


def store_asked(settings: ProtocolSettings) -> FrameStore | None:
    """The store of `prepared`, if there is one. RequestError where it has other frames than are asked for."""
    if not settings.prepared:
        return None
    store = open_store(settings.prepared)
    store.check(settings.video_settings(), settings.views.segments)
    return store


def open_asked(name: str, settings: ProtocolSettings, needs: Collection[SplitName], store: FrameStore | None) -> Opened:
    """`open_benchmark`, of the videos in a store where there is one."""
    return open_benchmark(name, settings, needs, Stored(store.corpus.url, store.videos) if store else None)
