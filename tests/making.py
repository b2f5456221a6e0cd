"""What tests make things of: small pictures, sources of every kind, and data sets built from them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from stillreel.animate.commands import animate as build
from stillreel.animate.scenes import caption_of, draw_scene, plan_scene
from stillreel.configs.build import AnimateSettings, VerifySettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.commands.verify import Verdict, verify
from tests.warm import Warm

SHARED = Path(os.environ.get("STILLREEL_SHARED", Path(__file__).resolve().parents[2] / "shared"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared test material at {SHARED}")

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[1]


def picture(number: int = 0, width: int = 160, height: int = 120) -> Pixels:
    """A small picture with texture, different for each number."""
    drawn = Image.fromarray(draw_scene(plan_scene(99, number)))
    return np.asarray(drawn.resize((width, height), Image.Resampling.BOX))


def jpeg(number: int = 0, width: int = 160, height: int = 120) -> bytes:
    return simplejpeg.encode_jpeg(picture(number, width, height), quality=90, colorsubsampling="420")


def encoded(pixels: Pixels, kind: str, **options: object) -> bytes:
    """Pixels (or a Pillow image's array) as a file of a kind that Pillow writes."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()


def picture_folder(folder: Path, count: int, *, width: int = 160, height: int = 120) -> Path:
    """A folder of JPEGs with captions.tsv."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file\tcaption"]
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(jpeg(number, width, height))
        lines.append(f"{number:05d}.jpg\t{caption_of(plan_scene(99, number))}")
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar as other tools write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def animate(source: Path | str, out: Path | str, **settings: object) -> int:
    """Build in this process."""
    values = {"ray": "inline", "progress": "off", **settings}
    return build.run(str(source), str(out), AnimateSettings.resolve(values))


def check(out: Path | str) -> Verdict:
    return verify(Folder(str(out)), VerifySettings(progress="off"))


def stillreel(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, as a user does; with an environment, which modules read when they are imported, in an
    interpreter of its own."""
    if not environment:
        return Warm("stillreel", [*map(str, words)]).finish(timeout=300)
    return subprocess.run(
        [sys.executable, "-m", "stillreel", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


def data_digests(out: Path) -> dict[str, str]:
    """Name -> sha256 of everything that must not depend on how a build was run: plans, tars, tables and indices."""
    files = [*out.glob("plan-*.parquet"), *(path for path in out.glob("shards/*") if path.suffix != ".json")]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def rows_of(out: Path) -> list[Mapping[str, object]]:
    """Rows of all shard tables."""
    import pyarrow.parquet as pq

    return [row for path in sorted(out.glob("shards/*.parquet")) for row in pq.read_table(path).to_pylist()]


def members_of_tars(out: Path) -> dict[str, bytes]:
    """All members of all tars, by name, as the standard library reads them."""
    found: dict[str, bytes] = {}
    for path in sorted(out.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                handle = tar.extractfile(member)
                assert handle is not None
                found[member.name] = handle.read()
    return found


def recipes_of(out: Path) -> dict[str, object]:
    return {
        name[:-5]: json.loads(data)["recipe"] for name, data in members_of_tars(out).items() if name.endswith(".json")
    }


@contextmanager
def held_by_another(out: Path) -> Iterator[None]:
    """Within it, another process is the one that writes OUT."""
    code = (
        "import sys; from stillreel.configs.system.lock import sole_writer\n"
        "from stillreel.configs.system.storage import Folder\n"
        "with sole_writer(Folder(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield
        holder.communicate()


@contextmanager
def s3_at(endpoint: str) -> Iterator[None]:
    """Within it, s3:// is the server at this address."""
    from s3fs import S3FileSystem

    values = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # fsspec keeps file systems by their arguments, of which the endpoint is none: another module's server is not ours.
    S3FileSystem.clear_instance_cache()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield
    S3FileSystem.clear_instance_cache()


@contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an empty server of S3's protocol on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        # What servers hold is kept by the process, and another module may have had one.
        urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
        yield host, port
    finally:
        server.stop()


@contextmanager
def s3_bucket(name: str) -> Iterator[str]:
    """s3://NAME, new, on such a server, which is what s3:// means within it."""
    with s3_server() as (host, port), s3_at(f"http://{host}:{port}"):
        Folder(f"s3://{name}").fs.mkdir(name)
        yield f"s3://{name}"


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def torchrun(
    module: str, words: Sequence[str], ranks: int, timeout: float, *, machines: int = 1, restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a module of the tests as `ranks` processes under real torchrun; of several machines, all here, `ranks` on each.

    So many times all are started again where one has died.
    """
    place = ["--standalone"]
    if machines > 1:
        place = [f"--nnodes={machines}", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    run = [*place, f"--nproc_per_node={ranks}", f"--max_restarts={restarts}"]
    with ExitStack() as others:
        for number in range(1, machines):
            others.enter_context(Warm(module, words, ranks=[*run, f"--node_rank={number}"]))
        return Warm(module, words, ranks=[*run, "--node_rank=0"] if machines > 1 else run).finish(timeout)
