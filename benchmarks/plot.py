"""Cost against quality, one dot a method, as the README shows it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from benchmarks.quality import Quality

_SPACE = 0.062  # between two labels, of the plot's height


def draw(results: dict[str, tuple[float, Quality | None]], title: str, file: Path) -> None:
    """Methods by CPU ms a clip (logarithmic) and PSNR in dB; names stand in a column beside, in the order of quality."""
    # The same numbers make the same file, of text that stays text.
    mpl.rcParams.update({"svg.hashsalt": "stillreel", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(9, 4.6))
    shown = sorted(((quality.psnr, cost, name) for name, (cost, quality) in results.items() if quality), reverse=True)
    axes.set(
        xscale="log", xlabel="CPU ms a clip of 12 frames at 224, decoding included", ylabel="PSNR, dB", title=title
    )
    low, high = min(psnr for psnr, _, _ in shown) - 2, max(psnr for psnr, _, _ in shown) + 2
    axes.set_ylim(low, high)
    axes.set_xticks([3, 10, 30, 100, 300], ["3", "10", "30", "100", "300"])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    place = 1.0
    for psnr, cost, name in shown:
        place = min((psnr - low) / (high - low), place - _SPACE)
        ours = name == "ours"
        color = "#c2410c" if ours else "#475569"
        axes.plot(cost, psnr, "o", color=color, markersize=9 if ours else 6)
        axes.annotate(
            f"{'stillreel' if ours else name}: {cost:.1f} ms, {psnr:.1f} dB",
            (cost, psnr),
            (1.03, place),
            textcoords="axes fraction",
            va="center",
            color=color,
            fontweight="bold" if ours else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.35, "shrinkB": 4, "relpos": (0, 0.5)},
        )
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
