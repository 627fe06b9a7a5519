"""Algorithm 3 (supplementary material): reduction of a matrix over Z₂ in parallel, in torch operations on any device.

Columns are added to others until no two have the same lowest one. Of all columns that share a lowest one, the leftmost
is added to each of the others, and this at once for all lowest ones (Definition 5 there). Columns are sparse: the
indices of their ones, one column after the other in a single tensor. A parallel addition sorts the entries of all
targets and sources and drops those that occur twice.
"""

from __future__ import annotations

import torch
from torch import Tensor


class SparseColumns:
    """A matrix over Z₂ that is being reduced.

    Parameters
    ----------
    position
        (m,) int64, all different: columns are to the left of those with a greater position.
    count
        (m,) int64: number of ones of each column.
    rows
        (sum of ``count``,) int64 ≥ 0: row indices of the ones of all columns, one column after the other; within a
        column ascending and all different.

    Attributes
    ----------
    low
        (m,) int64: row index of the lowest one of each column, −1 for a column of zeros.
    """

    def __init__(self, position: Tensor, count: Tensor, rows: Tensor) -> None:
        self.position = position
        self._by_position = position.argsort()
        self.low = rows.new_empty(0)
        self._count = rows.new_empty(0)
        self._start = rows.new_empty(0)
        self._rows = rows.new_empty(0)
        self._append(count, rows)

    def __len__(self) -> int:
        return len(self.position)

    def append(self, position: Tensor, count: Tensor, rows: Tensor) -> None:
        """Add columns to the matrix, at any position; parameters as for the class."""
        self.position = torch.cat((self.position, position))
        self._by_position = self.position.argsort()
        self._append(count, rows)

    def _append(self, count: Tensor, rows: Tensor) -> None:
        end = count.cumsum(0)
        self.low = torch.cat((self.low, _last(rows, end, count)))
        self._start = torch.cat((self._start, end - count + len(self._rows)))
        self._count = torch.cat((self._count, count))
        self._rows = torch.cat((self._rows, rows))

    def columns(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """The columns of the given indices, as (count, rows)."""
        count = self._count[which]
        shift = self._start[which] - count.cumsum(0) + count
        return count, self._rows[torch.repeat_interleave(shift, count) + _iota(int(count.sum()), count)]

    def additions(self) -> tuple[Tensor, Tensor]:
        """M(B) of Definition 5 (supplement): columns (sources, targets), each source to be added to its target."""
        column = self._by_position
        column = column[self.low[column] >= 0]
        low, by_low = self.low[column].sort(stable=True)
        column = column[by_low]
        again = torch.zeros_like(low, dtype=torch.bool)
        again[1:] = low[1:] == low[:-1]
        # columns of equal low are neighbours now, the leftmost first
        begin = torch.where(again, 0, _iota(len(low), low)).cummax(0).values
        return column[begin[again]], column[again]

    def add(self, sources: Tensor, targets: Tensor) -> None:
        """Add columns to others at once (the paper's ADD PARALLEL). No target may be a source or occur twice."""
        count, rows = self.columns(torch.cat((targets, sources)))
        owner = torch.repeat_interleave(_iota(len(targets), targets).repeat(2), count)
        bound = 1 + int(self.low[targets].amax())
        if bound * len(targets) < 2**63:
            key = (owner * bound + rows).sort().values
            key = key[_once(key)]
            owner = torch.div(key, bound, rounding_mode="floor")
            rows = key - owner * bound
        else:
            by_row = rows.argsort()
            order = by_row[owner[by_row].argsort(stable=True)]
            rows, owner = rows[order], owner[order]
            keep = _once(rows, owner)
            rows, owner = rows[keep], owner[keep]
        count = torch.bincount(owner, minlength=len(targets))
        end = count.cumsum(0)
        self.low[targets] = _last(rows, end, count)
        self._start[targets] = end - count + len(self._rows)
        self._count[targets] = count
        self._rows = torch.cat((self._rows, rows))
        if len(self._rows) > 2**16 + 2 * int(self._count.sum()):
            self._compact()

    def _compact(self) -> None:
        """Free the entries of columns that have been replaced."""
        self._count, self._rows = self.columns(_iota(len(self), self._start))
        self._start = self._count.cumsum(0) - self._count


def reduce(matrix: SparseColumns) -> None:
    """Reduce ``matrix`` in place: Algorithm 3. Afterwards no two columns that are not zero have one low."""
    sources, targets = matrix.additions()
    while len(targets):
        matrix.add(sources, targets)
        sources, targets = matrix.additions()


def _iota(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, dtype=torch.int64, device=like.device)


def _last(rows: Tensor, end: Tensor, count: Tensor) -> Tensor:
    """The last entry of each column, −1 where there is none."""
    if not len(rows):
        return torch.full_like(count, -1)
    return torch.where(count > 0, rows[(end - 1).clamp(min=0)], -1)


def _once(*sorted_keys: Tensor) -> Tensor:
    """Which entries occur once, of sorted keys that occur at most twice, as in the sum of two columns."""
    same = torch.ones(max(0, len(sorted_keys[0]) - 1), dtype=torch.bool, device=sorted_keys[0].device)
    for key in sorted_keys:
        same &= key[1:] == key[:-1]
    keep = torch.ones(len(sorted_keys[0]), dtype=torch.bool, device=same.device)
    keep[1:] &= ~same
    keep[:-1] &= ~same
    return keep
