"""Memory for pictures that is kept: fresh pages for each cost nearly as much as what is done with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PixelMemory:
    """Room for one picture, which grows as needed."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def shaped(self, height: int, width: int) -> NDArray[np.uint8]:
        """A picture (height, width, 3) of whatever lies there; the one before is lost."""
        needed = height * width * 3
        if len(self._bytes) < needed:
            self._bytes = np.empty(needed, np.uint8)
        return self._bytes[:needed].reshape(height, width, 3)

    def trim(self, most: int) -> None:
        """Give back what is kept, if it is more than this many bytes."""
        if len(self._bytes) > most:
            self._bytes = np.empty(0, np.uint8)
