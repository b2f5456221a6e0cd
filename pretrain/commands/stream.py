"""`stillreel stream DATA`: reads what a run would read, through the loaders that it would read it with.

keys=true       a line a step: the step, a tab, the keys of the global batch in order, blank-separated
simulate=true   nothing is trained: what each machine would download and keep, how well it is shuffled, how fast it loads
neither         everything is read and checked; the rate, and what is damaged
"""

from __future__ import annotations

import logging
import re
import time
from urllib.parse import quote

import numpy as np

from stillreel.configs.stream import StreamSettings
from stillreel.configs.system.hardware import usable_cores
from stillreel.configs.system.progress import amount
from stillreel.pretrain.data.dataset import ClipDataset, Share
from stillreel.pretrain.data.loader import ClipLoader
from stillreel.pretrain.data.together import Failure
from stillreel.shards.stream.simulate import node_costs, shuffle_quality
from stillreel.shards.stream.stream import Blend, merged, open_blend

_PROBE_S = 3.0
_log = logging.getLogger(__name__)


def run(data: str, settings: StreamSettings) -> int:
    """0 when all that was read is whole; 1 when some of it is damaged, within the budget or beyond it."""
    blend = open_blend(data)
    _log.info(blend.describe())
    steps = settings.steps or -(-sum(corpus.samples for corpus in blend.corpora) // settings.batch)
    if settings.simulate:
        _simulate(blend, settings, steps)
        return 0
    return _read(blend, settings, steps)


def _read(blend: Blend, settings: StreamSettings, steps: int) -> int:
    state = blend.start(settings.order(), settings.start, settings.batch)
    loaders = [
        ClipLoader(blend, settings, share, workers=settings.workers, state=state, steps=steps)
        for share in _shares(settings)
    ]
    begin = time.monotonic()
    for batches in zip(*loaders, strict=True):
        if settings.keys:
            keys = merged([batch.keys for batch in batches])
            print(f"{batches[0].step}\t{' '.join(map(_word, keys))}", flush=True)
    seconds = time.monotonic() - begin
    clips = steps * settings.batch
    damage = sorted({one for loader in loaders for one in loader.damage})
    _log.info(
        f"{clips:,} clips in {seconds:.1f} s, {clips / seconds:,.0f}/s; {len(damage):,} damaged samples were passed over"
    )
    return 1 if damage else 0


def _simulate(blend: Blend, settings: StreamSettings, steps: int) -> None:
    costs = node_costs(
        blend,
        settings,
        batch=settings.batch,
        ranks=settings.ranks,
        nodes=settings.nodes,
        start=settings.start,
        steps=steps,
    )
    clips = steps * settings.batch
    print(
        f"steps {settings.start:,} to {settings.start + steps - 1:,}: {clips:,} clips, {clips // settings.ranks:,} a rank"
    )
    for number, cost in enumerate(costs):
        print(
            f"node {number}: {cost.samples:,} samples; {cost.shards:,} shard downloads, {amount(cost.bytes)}; "
            f"a cache of {amount(cost.cache)} fetches none of them twice in an epoch"
        )
    for corpus in blend.corpora:
        quality = shuffle_quality(np.array([shard.samples for shard in corpus.shards], np.int64), settings)
        print(f"shuffle quality of {corpus.url}: {quality:.3f} (1: as a full permutation; 0: shard after shard)")
    rate = _probe(blend, settings)
    cores = usable_cores()
    busy = min(max(settings.workers, 1) * settings.ranks // settings.nodes, cores)
    print(f"loader rate here: {rate:,.0f} clips/s a worker, {rate * busy:,.0f} with {busy} of them on {cores} cores")


def _probe(blend: Blend, settings: StreamSettings) -> float:
    """Clips a second of one worker, measured for a few seconds on the data themselves."""
    state = blend.start(settings.order(), settings.start, settings.batch)
    batches = iter(ClipDataset(blend, settings, _shares(settings)[0], state, None))
    next(batches)  # opens files and warms up
    clips, begin = 0, time.monotonic()
    while not clips or time.monotonic() - begin < _PROBE_S:
        batch = next(batches)
        if isinstance(batch, Failure):
            raise batch.error()
        clips += len(batch.keys)
    return clips / (time.monotonic() - begin)


def _word(key: str) -> str:
    """A key as one word: blanks (and %) of foreign keys as in URLs."""
    return re.sub(r"[\s%]", lambda found: quote(found[0]), key)


def _shares(settings: StreamSettings) -> list[Share]:
    return [Share(settings.batch, rank, settings.ranks) for rank in range(settings.ranks)]
