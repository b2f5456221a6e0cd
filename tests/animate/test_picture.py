"""From any bytes to correct upright sRGB, or a reason why not."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stillreel.animate.pictures.jpeg import ends_with_picture, read_header
from stillreel.animate.pictures.picture import PictureReader, StoredPicture
from stillreel.animate.pictures.pillow import conversion_to_srgb
from stillreel.configs.build import ClipSettings
from stillreel.shards.format.record import REASONS, Rejection
from tests.making import SHARED, Pixels, encoded, jpeg, needs_shared, picture

KEEP = ClipSettings(max_side=0)


def memory(what: str) -> int:
    """VmRSS or VmHWM (the peak) of this process, bytes. (getrusage's peak is inherited from the process that forked.)"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) << 10


def read(data: bytes, settings: ClipSettings = KEEP) -> StoredPicture:
    return PictureReader(settings).read(data)


def reason(data: bytes, settings: ClipSettings = KEEP) -> str:
    with pytest.raises(Rejection) as caught:
        read(data, settings)
    assert caught.value.reason in REASONS
    assert caught.value.detail
    return caught.value.reason


def close(a: Pixels, b: Pixels, levels: float) -> bool:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean()) < levels


def with_exif(data: bytes, orientation: int, order: str = "<") -> bytes:
    """A JPEG with an EXIF block that says how it is turned."""
    end = "little" if order == "<" else "big"
    tiff = (b"II" if order == "<" else b"MM") + (42).to_bytes(2, end) + (8).to_bytes(4, end)  # type: ignore[arg-type]
    entry = b"".join(
        number.to_bytes(size, end) for number, size in ((0x0112, 2), (3, 2), (1, 4), (orientation, 2), (0, 2))
    )  # type: ignore[arg-type]
    body = b"Exif\0\0" + tiff + (1).to_bytes(2, end) + entry + bytes(4)  # type: ignore[arg-type]
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def test_plain_upright_jpeg_is_kept_byte_for_byte() -> None:
    data = jpeg(0)
    assert read(data).jpeg is data
    progressive = encoded(picture(0), "JPEG", quality=90, progressive=True)
    assert read(progressive).jpeg is progressive
    assert read(data, ClipSettings(max_side=160)).jpeg is data
    assert read(with_exif(data, 1)).jpeg == with_exif(data, 1)
    assert (read(data).pixels() == simplejpeg.decode_jpeg(data, "RGB")).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_orientation_is_honored(orientation: int, order: str) -> None:
    upright = picture(1, 160, 120)
    stored_as = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }.get(orientation, upright)
    data = with_exif(
        simplejpeg.encode_jpeg(np.ascontiguousarray(stored_as), 95, colorsubsampling="444"), orientation, order
    )
    found = read(data)
    assert found.size == (160, 120)
    assert close(found.pixels(), upright, 4)
    again = read_header(found.jpeg)
    assert again is not None
    assert again.orientation == 1 or orientation in (1, 9)


def test_large_pictures_are_shrunk_once() -> None:
    data = jpeg(2, 1000, 600)
    found = read(data, ClipSettings(max_side=512))
    assert found.size == (512, 307)
    assert close(
        found.pixels(), np.asarray(Image.fromarray(picture(2, 1000, 600)).resize((512, 307), Image.Resampling.BOX)), 4
    )
    header = read_header(found.jpeg)
    assert header is not None
    assert (header.width, header.height, header.sampled) == (512, 307, 192), "4:4:4"


def test_huge_pictures_are_decoded_small() -> None:
    found = read(jpeg(3, 4000, 3000), ClipSettings(max_side=512))
    assert found.size == (512, 384)
    assert close(
        found.pixels(), np.asarray(Image.fromarray(picture(3, 4000, 3000)).resize((512, 384), Image.Resampling.BOX)), 5
    )


def test_pixels_are_those_of_the_stored_bytes() -> None:
    for data in (jpeg(1), encoded(picture(1), "PNG"), jpeg(1, 1200, 900), with_exif(jpeg(1), 6)):
        found = read(data, ClipSettings(max_side=512))
        assert (found.pixels() == simplejpeg.decode_jpeg(found.jpeg, "RGB")).all()


@pytest.mark.parametrize(
    "kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA", "JPEG2000", "ICO", "AVIF", "PCX", "QOI"]
)
def test_every_kind_of_picture_is_read(kind: str) -> None:
    pixels = picture(5, 128, 128)
    options = {"WEBP": {"lossless": True}, "ICO": {"sizes": [(128, 128)]}, "AVIF": {"quality": 95}}.get(kind, {})
    assert close(read(encoded(pixels, kind, **options)).pixels(), pixels, 10 if kind == "GIF" else 5)


def test_modes_become_correct_rgb() -> None:
    pixels = picture(6, 96, 96)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    three = np.repeat(grey[..., None], 3, axis=2)
    as_grey_jpeg = encoded(grey, "JPEG", quality=95)
    assert close(read(as_grey_jpeg).pixels(), three, 3)
    header = read_header(read(as_grey_jpeg).jpeg)
    assert header is not None
    assert header.is_plain_color, "loaders get three channels"
    deep = encoded((grey.astype(np.uint16) * 257), "PNG")
    assert close(read(deep).pixels(), three, 3)
    assert close(read(encoded((grey > 127), "PNG")).pixels(), np.repeat(((grey > 127) * 255)[..., None], 3, axis=2), 4)
    palette = io.BytesIO()
    Image.fromarray(pixels).quantize(256).save(palette, "PNG")
    assert close(read(palette.getvalue()).pixels(), pixels, 8)


def test_transparent_pixels_are_over_white() -> None:
    pixels = picture(7, 96, 96)
    alpha = np.zeros((96, 96, 1), np.uint8)
    alpha[:48] = 255
    alpha[48:60] = 128
    found = read(encoded(np.concatenate([pixels, alpha], axis=2), "PNG")).pixels()
    assert close(found[:48], pixels[:48], 4)
    assert close(found[48:60], ((pixels[48:60].astype(int) * 128 + 255 * 127) // 255).astype(np.uint8), 5)
    assert found[64:].min() > 245


def test_cmyk_is_converted_with_and_without_a_profile() -> None:
    pixels = picture(8, 96, 96)
    sink = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(sink, "JPEG", quality=95)
    assert close(read(sink.getvalue()).pixels(), pixels, 5)


@needs_shared
def test_profiles_are_undone() -> None:
    """A photograph in Adobe RGB, as it lies among COCO's: its colors are duller than meant until it is converted."""
    data = (SHARED / "data/images/coco_mini/val2017_000000020247.jpg").read_bytes()
    expected = ImageCms.profileToProfile(
        Image.open(io.BytesIO(data)),
        ImageCms.ImageCmsProfile(io.BytesIO(Image.open(io.BytesIO(data)).info["icc_profile"])),
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert expected is not None
    found = read(data)
    assert close(found.pixels(), np.asarray(expected), 2.5)
    assert not close(found.pixels(), simplejpeg.decode_jpeg(data, "RGB"), 2.5)
    header = read_header(found.jpeg)
    assert header is not None
    assert header.icc == b"", "it needs no profile any more"


def test_profile_that_is_srgb_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert conversion_to_srgb(profile, "RGB") is None
    assert conversion_to_srgb(b"nonsense", "RGB") is None
    data = encoded(picture(0), "JPEG", quality=90, icc_profile=profile)
    assert read(data).jpeg is data


def test_animations_give_their_first_frame() -> None:
    frames = [Image.fromarray(picture(number, 96, 96)) for number in range(3)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        sink = io.BytesIO()
        frames[0].save(sink, kind, save_all=True, append_images=frames[1:], **options)
        assert close(read(sink.getvalue()).pixels(), picture(0, 96, 96), 10), kind


def test_what_follows_the_picture_is_left_behind() -> None:
    """A motion photo carries a film behind its picture; a shard should not."""
    data = jpeg(4)
    header = read_header(data)
    assert header is not None
    assert ends_with_picture(data, header.scan)
    found = read(data + b"\0\0\0\x18ftypmp42" + bytes(5000))
    assert len(found.jpeg) < len(data) * 3
    assert close(found.pixels(), picture(4), 5)
    assert b"ftypmp42" not in found.jpeg


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"hello, I am a caption", "not_an_image"),
        (jpeg(0)[:-400], "truncated"),
        (encoded(picture(0), "PNG")[:2000], "truncated"),
        (b"GIF89a" + b"junk" * 20, "corrupt"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "unsupported"),
        (jpeg(0, 31, 200), "too_small"),
        (jpeg(0, 165, 32), "too_long"),
    ],
)
def test_rejections_name_what_is_wrong(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_damaged_scan_is_corrupt() -> None:
    data = bytearray(jpeg(0))
    header = read_header(bytes(data))
    assert header is not None
    for at in range(header.scan + 400, header.scan + 800):
        data[at] = 0xFF if at % 2 else 0xD3  # restart markers where none belong
    assert reason(bytes(data)) in ("corrupt", "truncated")


def test_limits() -> None:
    assert reason(jpeg(0), ClipSettings(max_pixels=160 * 120 - 1)) == "too_large"
    assert read(jpeg(0), ClipSettings(max_pixels=160 * 120)).size == (160, 120)
    assert reason(jpeg(0), ClipSettings(min_side=121)) == "too_small"
    assert read(jpeg(0, 160, 32)).size == (160, 32)


def claiming(width: int, height: int, kind: str) -> bytes:
    """A small file whose header claims to be huge."""
    if kind == "PNG":
        import struct
        import zlib

        body = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
        chunk = b"IHDR" + body
        data = struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        idat = b"IDAT" + zlib.compress(bytes(100_000))
        return (
            b"\x89PNG\r\n\x1a\n" + data + struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
        )
    data = bytearray(encoded(picture(0), "JPEG", progressive=kind == "progressive"))
    at = data.find(b"\xff\xc2" if kind == "progressive" else b"\xff\xc0")
    data[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "baseline", "progressive"])
@pytest.mark.parametrize("max_side", [0, 512])
def test_a_header_that_lies_costs_no_memory(kind: str, max_side: int) -> None:
    """In a process of its own, so that its peak can be seen."""
    import subprocess
    import sys

    code = (
        "from tests.animate.test_picture import *\n"
        f"data = claiming(13000, 13000, {kind!r})\n"
        f"try: read(data, ClipSettings(max_side={max_side}))\n"
        "except Rejection as rejection: print(rejection.reason)\n"
        "import time; print(memory('VmHWM') >> 20, time.process_time())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    why, peak, seconds = said.stdout.split()
    assert why in ("truncated", "corrupt", "too_large")
    assert int(peak) < 1024
    assert float(seconds) < 10, "of the CPU: others may be at work on it"


@settings(max_examples=150)
@given(
    st.integers(0, 4000),
    st.binary(min_size=1, max_size=8),
    st.sampled_from(["cut", "write"]),
    st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]),
)
def test_damage_ends_in_a_picture_or_a_rejection_and_alike_for_all_stores(
    at: int, junk: bytes, how: str, kind: str
) -> None:
    data = jpeg(1) if kind == "JPEG" else encoded(picture(1), kind)
    at = min(at, len(data))
    damaged = data[:at] if how == "cut" else data[:at] + junk + data[at + len(junk) :]
    outcomes = []
    for _ in range(2):
        try:
            found = read(damaged)
            outcomes.append((found.size, found.jpeg))
            found.pixels()
        except Rejection as rejection:
            assert rejection.reason in REASONS
            outcomes.append(rejection.reason)
    assert outcomes[0] == outcomes[1]


@needs_shared
def test_all_damaged_pictures_end_well_and_within_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is other tests'
    before = memory("VmRSS")
    reader = PictureReader(ClipSettings())
    written = rejected = 0
    for path in sorted((SHARED / "data" / "nasty" / "images").iterdir()):
        start = time.process_time()
        try:
            reader.read(path.read_bytes()).pixels()
            written += 1
        except Rejection as rejection:
            assert rejection.reason in REASONS
            rejected += 1
        assert time.process_time() - start < 10, path.name
    assert written + rejected >= 450
    assert written >= 200
    assert memory("VmHWM") - before < 800 << 20, "with the 150 MiB of an idle worker, under 1 GiB"
