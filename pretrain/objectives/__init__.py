"""objectives: what is asked of the model, over the global batch, with the gradient of one process that has all of it.

    keys, captions, sources -> identity           who is who in a batch: pairs that are no negatives, numbers for draws
    features of own rows -> gather                all rows on each rank, in the order of the batch, with gradient
    classes                                       texts of all classes, dealt to the rows of a batch
    contrast, matching, distillation               the losses, over own rows against all
    task                                          the model with its objectives: what DDP wraps and a step calls

Each rank's loss is the mean over its own rows; the mean over ranks, which DDP takes of the gradients, is the batch's.
"""

from stillreel.pretrain.data.identity import Identity, identify
from stillreel.pretrain.objectives.classes import Classes, ClassTexts
from stillreel.pretrain.objectives.task import Batch, Encoded, Losses, Task

__all__ = ["Batch", "ClassTexts", "Classes", "Encoded", "Identity", "Losses", "Task", "identify"]
