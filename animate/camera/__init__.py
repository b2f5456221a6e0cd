"""camera: how one still is filmed. Pure mathematics, no pixels.

draw -> recipe -> windows      from (seed, key, grammar, size, caption) to a recipe, and from that to each frame's windows
geometry, words                areas of polygons; recipes and captions in words
"""
