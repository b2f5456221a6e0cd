"""High dynamic range to what a standard screen shows: plausible pictures for towers that never saw another kind.

PQ and HLG (ITU-R BT.2100) are brought to light, diffuse white at 203 cd/m2 (BT.2408) to just below full white, highlights
bent under it, BT.2020's primaries to BT.709's, and the result to sRGB. It works on the 8-bit picture after it was resized.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Light = NDArray[np.float32]
Transfer = Literal["pq", "hlg"]

# By the numbers of ITU-T H.273, which containers and FFmpeg use.
TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}

_WHITE = 203.0  # cd/m2
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2  # of the screen that HLG is mastered for
_KNEE = 0.6  # of full white: below, light stays as it is
_LUMINANCE_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)


def to_sdr(pixels: Pixels, transfer: Transfer) -> Pixels:
    """sRGB uint8 (..., 3) of BT.2020 RGB uint8 (..., 3) in this transfer."""
    light = _light(transfer)[pixels] / _WHITE
    if transfer == "hlg":  # its signal is of the scene; the screen adds contrast
        luminance = np.maximum(light @ _LUMINANCE_2020, 1e-6)[..., None] * (_WHITE / _HLG_PEAK)
        light = light * luminance ** (_HLG_GAMMA - 1)
    brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    light = light * (_bent(brightest) / brightest)
    linear = np.clip(light @ _TO_709.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * encoded), np.uint8)


def _light(transfer: Transfer) -> Light:
    """cd/m2 of each of the 256 signals; of HLG the scene's, at the peak's scale."""
    signal = np.arange(256) / 255
    if transfer == "pq":
        root = signal ** (1 / 78.84375)
        light = 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = _HLG_PEAK * np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(light, np.float32)


def _bent(light: Light) -> Light:
    """Light below the knee as it is; above, ever more slowly towards 1."""
    room = 1 - _KNEE
    return np.where(light < _KNEE, light, 1 - room * np.exp(-np.maximum(light - _KNEE, 0) / room))
