"""Which of several results no other one beats in everything."""

from collections.abc import Sequence


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Numbers of the points that no other is at most as large in both coordinates of, by rising first coordinate.

    Of equal points the first is taken.
    """
    order = sorted(range(len(points)), key=lambda number: (*points[number], number))
    best: list[int] = []
    for number in order:
        if not best or points[number][1] < points[best[-1]][1]:
            best.append(number)
    return best
