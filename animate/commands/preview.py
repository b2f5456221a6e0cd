"""Picks samples, gathers the figures, writes the page."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import pyarrow.compute as pc

from stillreel.animate.clips.decode import SampleDecoder
from stillreel.animate.preview.card import Card, make_card
from stillreel.animate.preview.page import render_page
from stillreel.configs import DataError
from stillreel.configs.build import PreviewSettings
from stillreel.configs.system.dice import Dice
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import Folder, folder_that_is_there
from stillreel.shards.build.survey import Survey, survey
from stillreel.shards.commands.stats import collect, tables
from stillreel.shards.format.plan import Plan, read_plans
from stillreel.shards.format.record import REJECTED
from stillreel.shards.format.sample import read_index, read_samples

_SHOWN_REJECTS = 200


def run(out: str, settings: PreviewSettings) -> int:
    """Write the preview page of a data set, finished or not; prints where it is."""
    folder = folder_that_is_there(out, "OUT")
    plans = read_plans(folder)
    if not plans:
        raise DataError(f"{folder.url} holds no plan: it is not a data set of stillreel's")
    found = survey(folder, plans, full=False)
    cards = [card for _, card in sorted(_cards(folder, plans, found, settings))]
    page = render_page(folder, plans, collect(folder, plans, found), cards, _rejects(folder, found)).encode()
    if settings.page:
        Path(settings.page).expanduser().write_bytes(page)
        where = settings.page
    else:
        folder.publish("preview.html", page)
        where = f"{folder.url}/preview.html"
    print(f"{len(cards)} clips on {where} ({amount(len(page))})", flush=True)
    return 0


def _cards(
    folder: Folder, plans: Sequence[Plan], found: Survey, settings: PreviewSettings
) -> Iterator[tuple[str, Card]]:
    """A card for each chosen sample, with its key."""
    header = plans[0].header
    frames, size = int(header.settings["frames"]), int(header.settings["size"])
    decoder = SampleDecoder(frames, size)
    for shard, rows in _choose(found, settings).items():
        index = read_index(folder, shard)
        entries = [index[row] for row in sorted(rows)]
        for entry, sample in zip(entries, read_samples(folder, shard, entries), strict=True):
            yield entry.key, make_card(entry.key, sample, decoder)


def _choose(found: Survey, settings: PreviewSettings) -> dict[str, set[int]]:
    """Shard -> rows of its index, of samples drawn without replacement from all written ones."""
    receipts = found.receipts
    ends = list(accumulate(receipt.written for receipt in receipts))
    total = ends[-1] if ends else 0
    dice = Dice(settings.seed, "preview")
    chosen: set[int] = set(range(total)) if total <= settings.samples else set()
    draw = 0
    while len(chosen) < min(settings.samples, total):
        chosen.add(int(dice.unit(f"{draw}") * total))
        draw += 1
    rows: dict[str, set[int]] = {}
    for number in chosen:
        at = bisect_right(ends, number)
        rows.setdefault(receipts[at].shard, set()).add(number - (ends[at] - receipts[at].written))
    return rows


def _rejects(folder: Folder, found: Survey) -> list[tuple[str, str, str]]:
    """(reason, source key, detail) of the first rejected samples."""
    rejects: list[tuple[str, str, str]] = []
    for table in tables(folder, found):
        rejected = table.filter(pc.equal(table["status"], REJECTED))
        columns = (rejected[name].to_pylist() for name in ("reason", "source_key", "detail"))
        rejects += zip(*columns, strict=True)
        if len(rejects) >= _SHOWN_REJECTS:
            break
    return rejects[:_SHOWN_REJECTS]
