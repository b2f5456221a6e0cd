"""A page that plays our frames next to ffmpeg zoompan's, magnified: `python -m benchmarks.renderer ... page=FILE`.

The pictures are scenes drawn by code, so the page may be shown anywhere.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import Zoompan, boxes_of
from stillreel.animate import Recipe, Renderer
from stillreel.animate.camera.recipe import Shot, View
from stillreel.animate.scenes import caption_of, draw_scene, plan_scene

Pixels = NDArray[np.uint8]

_FRAMES, _SIZE = 48, 224
_CLIPS = (
    (28, "a slow zoom", View(0.5, 0.5, 0.9), View(0.52, 0.48, 0.7)),
    (63, "a slow pan", View(0.46, 0.5, 0.7), View(0.52, 0.5, 0.7)),
    (29, "a slow drift", View(0.48, 0.52, 0.75), View(0.53, 0.49, 0.7)),
)
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2rem auto;padding:0 1rem;color:#1c1f24;background:#fff}"
    "figure{margin:0 0 2rem;display:grid;grid-template-columns:1fr 1fr;gap:12px}figure img{width:100%;image-rendering:auto;"
    "border-radius:4px}figcaption{grid-column:1/3;color:#5b6472}b{display:block}h1{font-size:1.4rem}"
)


def write_page(file: Path, zoompan: Zoompan) -> None:
    """Write the page, one self-contained file."""
    figures = []
    for number, what, start, end in _CLIPS:
        scene = plan_scene(0, number)
        picture = draw_scene(scene)
        height, width = picture.shape[:2]
        shot = Shot("move", (0.0, 1.0), start, end)
        recipe = Recipe("page", (width, height), shots=(shot,))
        ours = Renderer().render(recipe, picture, _FRAMES, _SIZE)
        jpeg = simplejpeg.encode_jpeg(picture, quality=95, colorspace="RGB", colorsubsampling="444")
        theirs = zoompan(jpeg, boxes_of(recipe, _FRAMES), _SIZE)
        figures.append(
            f"<figure><div><b>stillreel</b><img alt='stillreel' src='{_animation(ours)}'></div>"
            f"<div><b>ffmpeg zoompan</b><img alt='zoompan' src='{_animation(theirs)}'></div>"
            f"<figcaption>{html.escape(what)}: {html.escape(caption_of(scene))}</figcaption></figure>"
        )
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>stillreel beside zoompan</title>"
        f"<style>{_STYLE}</style><h1>The same moves, stillreel beside ffmpeg zoompan</h1>"
        "<p>Watch the edges: zoompan moves by whole pixels of the source and shakes; sub-pixel motion is smooth.</p>"
        f"{''.join(figures)}</html>"
    )
    file.write_text(page)


def _animation(frames: Pixels) -> str:
    sink = io.BytesIO()
    first, *others = (Image.fromarray(frame) for frame in [*frames, *frames[::-1]])
    first.save(sink, "WEBP", save_all=True, append_images=others, duration=60, loop=0, quality=80)
    return f"data:image/webp;base64,{base64.b64encode(sink.getvalue()).decode()}"
