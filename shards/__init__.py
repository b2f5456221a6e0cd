"""shards: the data set on disk.

In: samples as named bytes, one table of what was planned. Out: a folder or bucket prefix of plain WebDataset tars, each
with a table of its rows, a byte index and a receipt; and the proof that nothing is missing.
    plan -> writer -> receipt -> manifest        written in this order, each published whole or not at all
    build                                        the run that does so, for whoever hands in a function that makes a shard
    verify, stats, dataset                       read it back
    selection                                    some samples of finished data sets become another
    order -> mixture -> stream -> reader         which sample comes when, in training, and its bytes; catalog: over foreign tars
Knows bytes, keys, digests and order. Knows no pixels and no torch: what makes a sample, or turns it into frames, is handed in.
Ray is imported only where a build asks for it.
"""

from stillreel.configs.system.storage import Folder
from stillreel.shards.dataset import as_webdataset
from stillreel.shards.format.manifest import Manifest
from stillreel.shards.format.plan import Plan
from stillreel.shards.format.receipt import Receipt

__all__ = ["Folder", "Manifest", "Plan", "Receipt", "as_webdataset"]
