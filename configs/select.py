"""Settings of `stillreel select` and `reshard`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stillreel.configs.build import KeyPrefix, RunSettings


class CopySettings(RunSettings):
    """What a copy of finished samples is called, and how it is made."""

    name: KeyPrefix = Field(
        "", description="prefix of shard names and sample keys, [a-z0-9_]; empty: that of the first of CLIPS"
    )
    ray: str = Field(
        "off", description="off: `workers` processes without Ray; local: a private Ray; auto or an ADDRESS: a cluster"
    )


class ReshardSettings(CopySettings):
    shard_size: int = Field(1000, ge=1, le=100_000, description="samples per shard")


class SelectSettings(CopySettings):
    """Which samples are taken, and how they are copied."""

    where: str = Field(
        "",
        description="take what this is true of, as \"min(width, height) >= 256 and 'dog' in caption\". Columns: those of the "
        "shards' tables, caption (the first), and fold, drawn by seed in [0, 1): fold < 0.9 is a split",
    )
    unique: Literal["no", "exact", "near"] = Field(
        "no",
        description="take the largest of duplicates. exact: pictures of the same bytes; near: those that look the same (phash)",
    )
    distance: int = Field(
        6, ge=0, le=11, description="unique=near: bits of 64 in which the phash of duplicates may differ"
    )
    sample: int = Field(0, ge=0, description="take so many samples, drawn by seed from those that are left; 0: all")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed of sample and fold; 0 is a seed")
    shard_size: int = Field(0, ge=0, le=100_000, description="samples per shard; 0: as in the first of CLIPS")

    def choice(self) -> dict[str, Any]:
        """What decides which samples are copied, and into which shards, as far as it is no default."""
        values = {key: getattr(self, key) for key in type(self).model_fields if key not in RunSettings.model_fields}
        return {key: value for key, value in values.items() if value != type(self).model_fields[key].default}
