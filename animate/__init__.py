"""animate: a still and its caption become a clip.

In: pictures with captions, from a source. Out: samples for a shard, and frames from a sample.
    sources -> picture -> draw (dice, recipe) -> camera -> render (looks) -> encode      one still, in this order
    commands/animate -> shards/build -> clips/clip.make_shard                             millions of them
    decode, preview, demo, download                                                       what else people need of it
Knows pixels. Knows torch in its device renderer alone; Ray and img2dataset are imported only where a build or a download
runs, so that training can import this room without them. Importing it brings in none of the three.
"""

from stillreel.animate.camera.draw import draw_recipe, seen_area
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.camera.windows import windows
from stillreel.animate.clips.decode import Clip, SampleDecoder
from stillreel.animate.render.cpu import Renderer

__all__ = ["Clip", "Recipe", "Renderer", "SampleDecoder", "draw_recipe", "seen_area", "windows"]
