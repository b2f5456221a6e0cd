"""A finished data set as a webdataset pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from stillreel.configs.system.storage import Folder
from stillreel.shards.format.manifest import read_manifest
from stillreel.shards.format.receipt import part_file
from stillreel.shards.format.sample import decode_members

if TYPE_CHECKING:
    import webdataset

Sample = dict[str, Any]


def as_webdataset(
    out: str, decode: Callable[[Sample], Any] | None = None, *, shuffle: int = 0
) -> webdataset.WebDataset:
    """The tars of a finished data set as a `wds.WebDataset`, ready to iterate, split by node and by worker.

    Samples are dictionaries of `__key__`, `json` (parsed), `txt` (text) and the picture, frames or video as bytes
    (`jpg`, `000.jpg` ..., `mp4`). `decode`, e.g. `animate.SampleDecoder(frames=12)`, turns such a dictionary into what
    a model eats; it runs in the loader's workers. `shuffle` is the size of webdataset's shuffle buffer (0: tar order).
    For an exact, resumable order use the stream, not this.
    """
    import webdataset as wds

    folder = Folder(out)
    tars = [part_file(line.name, "tar") for line in read_manifest(folder).shards]
    urls = [f"{folder.url}/{name}" for name in tars]
    data = wds.WebDataset(
        urls,
        nodesplitter=_split_by_node if folder.is_local else _split_by_node_in_bucket,
        shardshuffle=len(urls) if shuffle else False,
        detshuffle=bool(shuffle),
        empty_check=False,
    )
    if shuffle:
        data = data.shuffle(shuffle)
    data = data.map(_decode_members)
    return data if decode is None else data.map(decode)


def _split_by_node(urls: Iterator[Any], group: Any = None) -> Iterator[Any]:
    import webdataset as wds

    yield from wds.split_by_node(urls, group)


def _split_by_node_in_bucket(urls: Iterator[Any], group: Any = None) -> Iterator[Any]:
    # The one stage that runs in the loader's own process before a tar is opened: here webdataset, which knows buckets
    # only through their command-line tools, learns to open them by fsspec.
    from webdataset.gopen import gopen_schemes

    for item in _split_by_node(urls, group):
        gopen_schemes[item["url"].partition("://")[0]] = _open_with_fsspec
        yield item


def _open_with_fsspec(url: str, mode: str = "rb", bufsize: int = 8192, **options: Any) -> IO[bytes]:
    parent, _, name = url.rpartition("/")
    return Folder(parent).open(name)


def _decode_members(sample: Sample) -> Sample:
    members = {name: value for name, value in sample.items() if not name.startswith("__")}
    own = {name: value for name, value in sample.items() if name.startswith("__")}
    return own | decode_members(sample["__key__"], members)
