"""The tables that the benchmarks print: what was measured, what it is compared with, and the ratio of the two."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

Figures = Sequence[float]


def heading(*titles: str) -> None:
    print(f"{'':>28}" + "".join(f"{title:>22}{'ratio':>9}" for title in titles))  # noqa: T201


def line(name: str, rounds: Sequence[tuple[Figures, Figures]]) -> None:
    """The figures of one round, and those that they are compared with; of several, the medians, also of the ratios."""
    ours, theirs = (list(zip(*side, strict=True)) for side in zip(*rounds, strict=True))
    columns = [_column(*each) for each in zip(ours, theirs, strict=True)]
    print(f"{name:>28}{''.join(columns)}", flush=True)  # noqa: T201


def p50_p99(values: Figures) -> tuple[float, float]:
    return median(values), quantiles(values, n=100)[98]


def _column(ours: Figures, theirs: Figures) -> str:
    pair = f"{_short(median(ours))} / {_short(median(theirs))}"
    ratio = median(our / other for our, other in zip(ours, theirs, strict=True))
    return f"{pair:>22}{ratio:>9.2f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
