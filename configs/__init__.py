"""configs: the typed schema of every setting, and the YAML presets.

In: command-line words (`key=value`) and preset files. Out: frozen, validated settings objects.
Every command's settings are one pydantic model here; grammars, looks and presets are YAML files beside them.
Knows nothing of pictures, shards, Ray or torch: importing it stays cheap, and every other room may import it.
"""

from stillreel.configs.errors import DataError, Interrupted, RequestError, StillreelError, StorageRefused
from stillreel.configs.settings import Settings, load_preset
from stillreel.configs.words import parse_words

__all__ = [
    "DataError",
    "Interrupted",
    "RequestError",
    "Settings",
    "StillreelError",
    "StorageRefused",
    "load_preset",
    "parse_words",
]
