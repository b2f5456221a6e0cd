"""data: what training reads.

In: the stream's samples, by position. Out: batches of clips on the CPU, the same for every number of ranks and workers.
    film -> dataset -> loader      a sample becomes a clip; a rank's share of a batch; what was consumed, is all well
    identity                       equal captions and pictures, and numbers for draws
    together                       what ranks tell each other before each step
    command                        `stillreel stream`
"""

from stillreel.pretrain.data.dataset import BatchDataset, BatchMaker, ClipBatch, ClipDataset, Share
from stillreel.pretrain.data.film import View, view_at
from stillreel.pretrain.data.loader import BatchLoader, ClipLoader

__all__ = [
    "BatchDataset",
    "BatchLoader",
    "BatchMaker",
    "ClipBatch",
    "ClipDataset",
    "ClipLoader",
    "Share",
    "View",
    "view_at",
]
