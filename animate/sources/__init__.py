"""Where stills come from. A source lists its samples once, for the plan, and later reads the bytes of planned ones.

tars       img2dataset's folders, and plain WebDataset shards of pictures
pictures   a folder of pictures with a table of captions
parquet    Parquet files that hold the pictures' bytes
"""

from stillreel.animate.sources.base import Source
from stillreel.animate.sources.find import open_source, source_of_plan

__all__ = ["Source", "open_source", "source_of_plan"]
