"""Find videos by text: a folder of videos becomes an index on the disk, and a query its best videos, coarse to fine.

build.py      videos -> features, in parts that outlive a crash -> the index, whole or not at all
sources.py    a folder of videos or a data set of clips: what is there, and its frames
footage.py    entries of a source -> batches of frames, with what is wrong with them
parts.py      a part of an index in the making, by this process or by hosts of a cluster
store.py      the files of an index, memory-mapped
exact.py      queries x vectors -> the best rows, exactly
approximate.py  faiss beside it, if asked for
searcher.py   text, picture or video -> vector -> candidates -> re-ranked results with their moments
query.py      the command `search`
serve.py      the command `serve`
app.py        the web application: what is asked and answered; page/, what the browser gets
guard.py      what protects it: hosts, sizes, how many may wait; and what it counts
"""

from stillreel.finetune.search.exact import best_rows
from stillreel.finetune.search.searcher import Hit, Searcher, search
from stillreel.finetune.search.store import VideoIndex, open_index

__all__ = ["Hit", "Searcher", "VideoIndex", "best_rows", "open_index", "search"]
