"""run: the folder of a training run: its checkpoints, its journal, and how it is stopped and goes on.

    OUT/run.json                        settings, their digest, versions of the libraries; written at every start
    OUT/metrics.jsonl                   a line every so many steps
    OUT/checkpoints/step-00001000/      model.safetensors, config.json: a model, as `load_model` reads it
                                        training.safetensors: what only training needs (a part of each rank's, where
                                        weights lie in shards); state.json: written last
    OUT/tensorboard/, wandb/            if asked for

    opening: the model that is meant, be it a run's, a peer's file or a CLIP by name

No training here: a loop calls these parts. Rank 0 writes what is whole, and all ranks hear what came of it.
"""

from stillreel.pretrain.run.checkpoint import Checkpoint
from stillreel.pretrain.run.folder import RunFolder
from stillreel.pretrain.run.meter import Meter, Reading, StepValues
from stillreel.pretrain.run.metrics import Display, MetricsLogger
from stillreel.pretrain.run.parts import Parts, take_parts
from stillreel.pretrain.run.preemption import PreemptionHandler
from stillreel.pretrain.run.snapshot import Snapshot, restore_snapshot, take_snapshot

__all__ = [
    "Checkpoint",
    "Display",
    "Meter",
    "MetricsLogger",
    "Parts",
    "PreemptionHandler",
    "Reading",
    "RunFolder",
    "Snapshot",
    "StepValues",
    "restore_snapshot",
    "take_parts",
    "take_snapshot",
]
