"""Few rows in which every two values of different factors meet."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def pairwise(factors: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Rows with a value of each factor. Greedy: each next row has most of the pairs that are still due."""
    rows = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    due = {pair for row in rows for pair in _pairs(row)}
    chosen = []
    while due:
        best = max(rows, key=lambda row: len(due & _pairs(row)))
        chosen.append(best)
        due -= _pairs(best)
    return chosen


def _pairs(row: Row) -> set[frozenset[tuple[str, Any]]]:
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
