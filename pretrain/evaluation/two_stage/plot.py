"""R@1 and the recall ceiling against K, with what each K costs: one SVG that needs nothing else."""

from __future__ import annotations

from html import escape

from stillreel.pretrain.evaluation import intervals
from stillreel.pretrain.evaluation.two_stage.sweep import Level, Sweep

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 96, 56, 74
_STYLE = (
    "text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#667080}.title{font-size:15px;font-weight:600;fill:#1b1f24}"
    ".grid{stroke:#d9dee5}.fine{stroke:#c2410c;fill:none;stroke-width:2.5}.ceiling{stroke:#475569;fill:none;stroke-width:2;"
    "stroke-dasharray:6 4}.coarse{stroke:#3a86ff;fill:none;stroke-width:2}.band{stroke:#c2410c;stroke-opacity:.45}"
    ".dot{fill:#c2410c}.named{font-weight:600}"
)


def draw_sweep(sweep: Sweep, title: str) -> str:
    """The picture of a sweep: levels stand side by side, evenly, for K grows by factors."""
    levels = sweep.levels[1:]
    spans = [intervals(level.ranks, (1,))["r1"] for level in levels]
    values = [_r1(level) for level in sweep.levels] + [level.ceiling for level in levels]
    low = 10 * int(min(values + [span.low for span in spans]) // 10)
    high = min(100, 10 * -int(-max(values + [span.high for span in spans]) // 10)) or 100

    def at(number: int) -> float:
        return _LEFT + (number + 0.5) * (_WIDTH - _LEFT - _RIGHT) / len(levels)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / max(high - low, 1) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text class="title" x="{_LEFT}" y="26">{escape(title)}</text>']
    for value in range(low, high + 1, 10 if high - low <= 60 else 20):
        parts.append(f'<path class="grid" d="M{_LEFT} {up(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 10}" y="{up(value) + 4:.1f}" text-anchor="end">{value} %</text>')
    for number, (level, span) in enumerate(zip(levels, spans, strict=True)):
        x, y = at(number), up(_r1(level))
        parts.append(f'<path class="band" d="M{x:.1f} {up(span.low):.1f}V{up(span.high):.1f}"/>')
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts += _below(sweep, level, x)
    parts.append(f'<path class="coarse" d="M{_LEFT} {up(_r1(sweep.coarse)):.1f}H{_WIDTH - _RIGHT}"/>')
    for name, heights in (("ceiling", [one.ceiling for one in levels]), ("fine", [_r1(one) for one in levels])):
        line = "L".join(f"{at(number):.1f} {up(value):.1f}" for number, value in enumerate(heights))
        parts.append(f'<path class="{name}" d="M{line}"/>')
    ends = {"ceiling": levels[-1].ceiling, "re-ranked": _r1(levels[-1]), "coarse": _r1(sweep.coarse)}
    parts += _named({name: up(value) for name, value in ends.items()})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _below(sweep: Sweep, level: Level, x: float) -> list[str]:
    per_query = 1000 * level.seconds / len(level.ranks.values)
    told = (f"K = {sweep.name_of(level)}", f"{per_query:.3g} ms")
    kinds = (' class="named"', "")
    return [
        f'<text{kind} x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 24 + 19 * row}" text-anchor="middle">{escape(text)}</text>'
        for row, (kind, text) in enumerate(zip(kinds, told, strict=True))
    ]


def _named(places: dict[str, float]) -> list[str]:
    """Names of the lines at their right ends, moved apart where they would lie on each other."""
    parts, last = [], -100.0
    for name, y in sorted(places.items(), key=lambda one: one[1]):
        last = max(y, last + 16)
        parts.append(f'<text class="named" x="{_WIDTH - _RIGHT + 8}" y="{last + 4:.1f}">{name}</text>')
    return parts


def _r1(level: Level) -> float:
    return 100 * float(level.ranks.hits(1).mean())
