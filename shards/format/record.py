"""What became of one planned sample: a row of its shard's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from stillreel.configs.system.claims import damage_of, read_parquet
from stillreel.shards.format.plan import PlannedSample

# The closed list of reasons to reject a sample. `stats`, `verify` and the preview sort by them; details are free text.
REASONS = {
    "missing": "the source names a picture that is not there",
    "filtered": "where= is not true of it",
    "blocked": "it is in the blocklist",
    "ambiguous": "the source gives two pictures under one key",
    "no_caption": "no caption, or only blanks",
    "bad_caption": "the caption is not UTF-8 text",
    "caption_too_long": "a text that holds captions has more bytes than are read",
    "empty": "the file has no bytes",
    "not_an_image": "the bytes are no picture that any decoder knows",
    "unsupported": "a picture of a kind that cannot be decoded here",
    "truncated": "the picture ends early",
    "corrupt": "the picture's data are damaged",
    "too_large": "more pixels than max_pixels, or more memory to decode than a worker may use",
    "too_small": "a side below min_side",
    "crashed": "decoding the picture ends the process that tries, again and again",
    "timed_out": "decoding the picture takes more CPU time than picture_cpu_seconds, again and again",
    "too_long": "one side more than 5 times the other",
    # Of videos, whose frames finetuning stores; they share the reasons above, said of a video.
    "unreadable": "the file cannot be read",
    "not_a_video": "no container that is read here",
    "no_video": "a container without moving pictures",
    "no_frames": "no frame could be decoded",
    "too_slow": "decoding took longer than max_seconds",
    "outside": "no frame lies in the span that was asked for",
}

# Reasons of those that somebody chose to leave out: nothing is wrong with them, and no budget is for them.
CHOSEN = frozenset({"filtered", "blocked"})

WRITTEN = "written"
REJECTED = "rejected"

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("captions", pa.list_(pa.string())),
        pa.field("moves", pa.list_(pa.string())),
        pa.field("seen_area", pa.float32()),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.int64()),
    ]
)
# What tables were before there was phash; they are read as before.
_WITHOUT_PHASH = pa.schema(list(SCHEMA)[:12])
SCHEMAS = (SCHEMA, _WITHOUT_PHASH)


class Rejection(Exception):
    """One sample that cannot be used: a reason from REASONS and what exactly was found."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Record(NamedTuple):
    """A row of a shard's table; `reason` and `detail` only of rejected samples, the picture's fields only of written ones.

    `width` and `height` are of the stored, upright picture; `sha256` (hex) is that of the sample's bytes in the tar, as in
    the index; `phash` is 64 bits of how the picture looks, the same in every store.
    """

    key: str
    status: str
    reason: str | None
    detail: str | None
    source: str
    source_key: str
    width: int | None
    height: int | None
    captions: Sequence[str]
    moves: Sequence[str]
    seen_area: float | None
    sha256: str | None
    phash: int | None

    @classmethod
    def of(cls, planned: PlannedSample, status: str, reason: str | None = None, detail: str | None = None) -> Record:
        """The row of a planned sample as far as it is known of any."""
        source = (planned.source, planned.source_key)
        return cls(planned.key, status, reason, detail, *source, None, None, (), (), None, None, None)


def table_of(records: Sequence[Record]) -> pa.Table:
    """The records as an Arrow table of SCHEMA, in the order given."""
    columns = zip(*records, strict=True) if records else [[] for _ in SCHEMA]
    return pa.table(
        [pa.array(list(column), field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def read_table(data: bytes, where: str) -> pa.Table:
    """A shard's table from the bytes of its file. Damaged, which names `where`, when they are none."""
    with damage_of(f"{where} cannot be read"):
        table = read_parquet(data)
        table.validate(full=True)
        if not any(map(table.schema.equals, SCHEMAS)) or any(
            table[field.name].null_count for field in table.schema if not field.nullable
        ):
            raise ValueError(f"columns {', '.join(table.schema.names)}; expected {', '.join(SCHEMA.names)}")
        return table
