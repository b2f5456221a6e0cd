"""shards: the data set on disk.

In: samples as named bytes, one table of what was planned. Out: a folder or bucket prefix of plain WebDataset tars, each
with a table of its rows, a byte index and a receipt; and the proof that nothing is missing.
    plan -> writer -> receipt -> manifest        written in this order, each published whole or not at all
    verify, stats, dataset                       read it back
    order -> mixture -> stream -> reader         which sample comes when, in training, and its bytes; catalog: over foreign tars
Knows bytes, keys, digests and order. Knows no pixels, no torch, no Ray: what turns a sample into frames is handed in.
"""

from shards.dataset import as_webdataset
from shards.manifest import Manifest
from shards.plan import Plan
from shards.receipt import Receipt
from shards.storage import Folder

__all__ = ["Folder", "Manifest", "Plan", "Receipt", "as_webdataset"]
