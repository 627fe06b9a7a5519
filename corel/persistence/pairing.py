"""Which simplices create and fill the classes of a Vietoris–Rips filtration.

Dimension 0 reduces the boundary matrix of the edges, as the paper does. Higher dimensions reduce the coboundary matrix,
which is the boundary matrix mirrored at its anti-diagonal and has the same pairs [de Silva et al., 2011]. Algorithm 3
runs on it unchanged, with far less work:

- Simplices that fill a class create none; their columns need not be reduced (clearing).
- A simplex σ is paired with its earliest coface τ without any reduction if σ is the latest face of τ: no column to the
  left of that of σ contains τ. Nearly all pairs are of this kind (apparent pairs [Bauer, 2021]), and they have equal
  birth and death. Of their columns, only the few that have to be added to others are built.

Columns and rows are numbered by a formula. The number of a simplex, in base n, has the digit n − 1 − v for each of its
vertices v, preceded by the number of different lengths greater than its own: a smaller number is a later simplex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from corel.persistence.filtration import EdgeOrder, Simplices
from corel.persistence.reduction import SparseColumns, reduce

#: Most entries of a temporary tensor, few enough for the cache of a processor.
_CHUNK = 2**17


class Pairs(NamedTuple):
    """Classes of one dimension by the vertices of their simplices, in the order of a :class:`PersistenceDiagram`."""

    birth: Tensor  # (k, dim + 1)
    death: Tensor  # (k, dim + 2)
    essential: Tensor  # (e, dim + 1)


def pairs_of_graph(n: int, edges: Tensor) -> Pairs:
    """Dimension 0 by Kruskal's algorithm.

    Each component is named by its first vertex. Of two that merge, the one with the later name dies.

    Parameters
    ----------
    n
        Number of vertices.
    edges
        (m, 2) in filtration order: all of them, or those of a minimum spanning forest.
    """
    from corel.persistence.kernels.edges import merge  # importing Numba takes long

    found = merge(n, edges.cpu().numpy())
    birth, death, essential = (torch.from_numpy(vertices).to(edges.device) for vertices in found)
    return Pairs(birth.unsqueeze(1), death, essential.unsqueeze(1))


def pairs_of_boundary(n: int, edges: Tensor) -> Pairs:
    """Dimension 0 by reduction of the boundary matrix of the edges; parameters as for :func:`pairs_of_graph`."""
    m = len(edges)
    matrix = SparseColumns(
        torch.arange(m, dtype=torch.int64, device=edges.device), edges.new_full((m,), 2), edges.flatten()
    )
    reduce(matrix)
    filling = matrix.low >= 0
    essential = torch.ones(n, dtype=torch.bool, device=edges.device)
    essential[matrix.low[filling]] = False
    return Pairs(matrix.low[filling].unsqueeze(1), edges[filling], essential.nonzero())


@dataclass(frozen=True, eq=False)
class Coboundary:
    """The coboundary matrix of the simplices of one dimension d ≥ 1, without its entries.

    Raises
    ------
    ValueError
        If the numbers of its rows do not fit into 64 bits.
    """

    order: EdgeOrder
    dim: int

    def __post_init__(self) -> None:
        n = len(self.order.place)
        if (self.order.levels + 1) * n ** (self.dim + 2) >= 2**63:
            raise ValueError(
                f"max_dim: got {self.dim} or more for {n} points of {self.order.levels} different lengths, whose "
                "simplices 64-bit integers cannot number; choose a smaller max_dim or max_length"
            )

    def number(self, vertices: Tensor, level: Tensor) -> Tensor:
        """Numbers of simplices of any dimension: (k, size) ascending vertices and (k,) levels → (k,)."""
        n = len(self.order.place)
        number = self.order.levels - level
        for v in vertices.unbind(1):
            number = number * n + (n - 1 - v)
        return number

    def vertices(self, number: Tensor) -> Tensor:
        """Vertices of the simplices of dimension d + 1 of the given numbers: (k,) → (k, d + 2)."""
        n = len(self.order.place)
        digits = []
        for _ in range(self.dim + 2):
            rest = torch.div(number, n, rounding_mode="floor")
            digits.append(n - 1 - (number - rest * n))
            number = rest
        return torch.stack(digits[::-1], 1)

    def level(self, vertices: Tensor) -> Tensor:
        """Levels of simplices of dimension ≥ 1: (k, size) → (k,)."""
        return self.order.level[vertices.unsqueeze(2), vertices.unsqueeze(1)].amax((1, 2))

    def earliest_cofaces(self, vertices: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """The vertex that completes each simplex to its earliest coface, and the level of that coface.

        The level is ``order.levels`` where a simplex has no coface; the vertex then means nothing.
        """
        n = len(self.order.place)
        apex = torch.arange(n, dtype=torch.int64, device=vertices.device)
        # Level and apex in one number, so that one minimum finds both. On the diagonal it is the greatest: a vertex of
        # the simplex itself is never the apex.
        code = self.order.level * n
        code.fill_diagonal_(self.order.levels * n)
        if (self.order.levels + 1) * n < 2**31:
            code = code.int()
        rows = max(1, _CHUNK // n)
        least = []
        for first in range(0, len(vertices), rows):
            corners = vertices[first : first + rows].unbind(1)
            longest = code.index_select(0, corners[0])
            for corner in corners[1:]:
                longest = torch.maximum(longest, code.index_select(0, corner))
            own = (level[first : first + rows] * n).to(code.dtype)
            least.append((torch.maximum(longest, own.unsqueeze(1)) + apex.to(code.dtype)).amin(1))
        best = torch.cat(least).long() if least else level
        coface_level = torch.div(best, n, rounding_mode="floor")
        return best - coface_level * n, coface_level

    def latest_faces(self, vertices: Tensor) -> Tensor:
        """Which vertex of each simplex of dimension d + 1 is opposite to its latest face: (k, d + 2) → (k,)."""
        corners = range(self.dim + 2)
        level = self.order.level
        pair = {(a, b): level[vertices[:, a], vertices[:, b]] for a in corners for b in corners if a < b}
        faces = [
            torch.stack([value for key, value in pair.items() if opposite not in key]).amax(0) for opposite in corners
        ]
        # of faces of equal level, the last in lexicographic order is the one without the least vertex
        code = torch.stack([face * (self.dim + 2) + self.dim + 1 - o for o, face in enumerate(faces)])
        return self.dim + 1 - code.amax(0) % (self.dim + 2)

    def apparent(self, vertices: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Which simplices are in apparent pairs (k,), and the vertices of their cofaces (of these only)."""
        apex, coface_level = self.earliest_cofaces(vertices, level)
        index = (coface_level == level).nonzero().squeeze(1)
        apex = apex[index].unsqueeze(1)
        coface = torch.cat((vertices[index], apex), 1).sort(1).values
        opposite = self.latest_faces(coface)
        same = coface.gather(1, opposite.unsqueeze(1)) == apex
        mask = torch.zeros_like(level, dtype=torch.bool)
        mask[index] = same.squeeze(1)
        return mask, coface[same.squeeze(1)]

    def columns(self, vertices: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of simplices as (count, rows), as :class:`SparseColumns` takes them."""
        n = len(self.order.place)
        apex = torch.arange(n, dtype=torch.int64, device=vertices.device)
        rows = max(1, _CHUNK // n)
        counts, entries = [level.new_empty(0)], [level.new_empty(0)]
        for first in range(0, len(vertices), rows):
            some = vertices[first : first + rows]
            longest = torch.maximum(level[first : first + rows, None], self.order.level[some].amax(1))
            number = self.order.levels - longest
            # the digits of the simplex's vertices, and that of the apex among them in ascending order
            before = torch.ones_like(number, dtype=torch.bool)
            for corner in some.unsqueeze(2).unbind(1):
                above = apex < corner
                number = torch.where(above & before, number * n + (n - 1 - apex), number)
                number = number * n + (n - 1 - corner)
                before = ~above
            number = torch.where(before, number * n + (n - 1 - apex), number)
            present = longest < self.order.levels
            present.scatter_(1, some, False)
            number = torch.where(present, number, -1).sort(1).values
            present = number >= 0
            counts.append(present.sum(1))
            entries.append(number[present])
        return torch.cat(counts), torch.cat(entries)


def pairs_of_coboundary(order: EdgeOrder, simplices: Simplices, cleared: Tensor) -> tuple[Pairs, Tensor]:
    """Dimension d ≥ 1 by reduction of the coboundary matrix; pairs of equal birth and death are left out.

    Parameters
    ----------
    order
        The edges of the filtration.
    simplices
        All simplices of dimension d.
    cleared
        Numbers (:class:`Coboundary`) of those that fill a class of dimension d − 1.

    Returns
    -------
    pairs
        The classes.
    deaths
        Numbers of all simplices of dimension d + 1 that fill a class, those of equal birth and death included.
    """
    dim = simplices.vertices.shape[1] - 1
    matrix = Coboundary(order, dim)
    apparent, coface = matrix.apparent(simplices.vertices, simplices.level)
    faces, face_level = simplices.vertices[apparent], simplices.level[apparent]
    apparent_death, by_death = matrix.number(coface, face_level).sort()
    faces, face_level = faces[by_death], face_level[by_death]
    vertices, level = simplices.vertices[~apparent], simplices.level[~apparent]
    number = matrix.number(vertices, level)
    rest = ~torch.isin(number, cleared)
    vertices, level, number = vertices[rest], level[rest], number[rest]

    columns = SparseColumns(number, *matrix.columns(vertices, level))
    absent = torch.ones_like(face_level, dtype=torch.bool)

    def complete(low: Tensor) -> None:
        """Build the missing columns of apparent pairs with these lows; each is the leftmost of its low."""
        place = torch.searchsorted(apparent_death, low).clamp(max=len(apparent_death) - 1)
        place = place[(apparent_death[place] == low) & absent[place]].unique()
        if len(place):
            absent[place] = False
            some, some_level = faces[place], face_level[place]
            columns.append(matrix.number(some, some_level), *matrix.columns(some, some_level))

    if len(apparent_death):
        complete(columns.low)
    sources, targets = columns.additions()
    while len(targets):
        columns.add(sources, targets)
        if len(apparent_death):
            complete(columns.low[targets])
        sources, targets = columns.additions()

    low = columns.low[: len(vertices)]
    finite = low >= 0
    birth, low = vertices[finite], low[finite]
    death = matrix.vertices(low)
    lasting = matrix.level(death) > level[finite]
    by_death = low[lasting].argsort(descending=True)
    pairs = Pairs(birth[lasting][by_death], death[lasting][by_death], vertices[~finite])
    return pairs, torch.cat((apparent_death, low))


def pairs_of_coboundary_by_column(order: EdgeOrder, simplices: Simplices, cleared: Tensor) -> tuple[Pairs, Tensor]:
    """What :func:`pairs_of_coboundary` does, on the CPU, by a compiled function that reduces a column at a time.

    ``cleared`` has to be ascending, as the numbers are that this returns.
    """
    from corel.persistence.kernels.cohomology import reduce_coboundary  # importing Numba takes long

    Coboundary(order, simplices.vertices.shape[1] - 1)  # raises where numbers of simplices are too large
    arrays = (tensor.numpy() for tensor in (simplices.vertices, simplices.level, cleared))
    found = reduce_coboundary(order.level.int().numpy(), order.levels, *arrays)
    birth, death, essential, filling = map(torch.from_numpy, found)
    return Pairs(birth, death, essential), filling
