"""Which containers are read, and the endings of their files: what the decoder opens and what a walk over a folder finds are one
list."""

from __future__ import annotations

# By FFmpeg's names. Only containers that hold their own pictures: a playlist, a list of files or a session description makes
# FFmpeg open what it names, over the network too.
CONTAINERS = {
    "mp4": ("mp4", "m4v", "f4v"),
    "webm": ("webm",),
    "matroska": ("mkv",),
    "mov": ("mov", "qt", "3gp", "3gpp", "3g2"),
    "avi": ("avi", "divx"),
    "mpegts": ("ts", "mts", "m2ts", "m2t"),
    "mpeg": ("mpg", "mpeg", "vob", "m2p"),
    "asf": ("wmv", "asf"),
    "flv": ("flv",),
    "ogg": ("ogv", "ogm"),
    "gif": ("gif",),
    "ivf": ("ivf",),
    "mxf": ("mxf",),
}
# In the order of preference, where a folder has a video in several.
VIDEO_ENDINGS = tuple(ending for endings in CONTAINERS.values() for ending in endings)
