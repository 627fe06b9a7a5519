"""Persistent homology of Vietoris–Rips filtrations, with pairing, and differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from corel import _checks
from corel.persistence.diagram import PersistenceDiagram
from corel.persistence.filtration import (
    EdgeOrder,
    check_edges,
    edge_order,
    enclosing_radius,
    vietoris_rips_filtration,
)
from corel.persistence.metric import (
    check_distances,
    check_p,
    edge_lengths,
    in_transform,
    is_plain_cpu,
    only_backward,
    pairwise_lengths,
    symmetric_lengths,
)
from corel.persistence.pairing import (
    Coboundary,
    Pairs,
    pairs_of_boundary,
    pairs_of_coboundary,
    pairs_of_coboundary_by_column,
    pairs_of_graph,
)
from corel.persistence.spanning_tree import check_points, merge_edges


def vr_persistence(
    points: Tensor | None = None,
    p: float = 1.0,
    *,
    distances: Tensor | None = None,
    max_dim: int = 0,
    max_length: float | Tensor | None = None,
    algorithm: str = "auto",
) -> list[PersistenceDiagram]:
    """Vietoris–Rips persistent homology of a point cloud, or of a matrix of distances, with coefficients in Z₂.

    A simplex enters the filtration with the length ε of its longest edge (a full length, not a radius). Simplices of
    one dimension are ordered by (length, vertices); so pairs are unique, and the same on every device. In dimension 0
    every death is reported, those at 0 of equal points included; in higher dimensions classes that die where they are
    born are left out, as by other libraries.

    Parameters
    ----------
    points
        (n, d) floating point, finite, n ≥ 1, d ≥ 1; float16 and bfloat16 are computed in float32.
    p
        Norm of ``points``, 1 ≤ p ≤ ∞.
    distances
        In place of ``points``: (n, n) floating point, n ≥ 1, non-negative, symmetric and zero on the diagonal. ∞ means
        that two points are never joined. The triangle inequality need not hold. Lengths are those above the diagonal;
        those below it and on it may deviate, as rounding makes them do in ``torch.cdist(x, x)``, by up to 4 √ϵ times
        the largest finite length, ϵ being the machine epsilon of the dtype that is computed in, or by up to the machine
        epsilon of float16 or bfloat16, if given these, times that length.
    max_dim
        Highest dimension of the classes, ≥ 0. Simplices are numbered in 64 bits: that is enough for about 7,000 points
        where ``max_dim`` is 1 and 1,600 where it is 2, and for more where few lengths differ.
    max_length
        Simplices up to this length are in the filtration, ≥ 0, a number or a tensor of shape (), through which no
        gradient flows; classes that are alive then are essential. By default the enclosing radius, the least length
        within which one point reaches all others: nothing but one component is alive beyond it.
    algorithm
        ``"reduction"``: Algorithm 3 of the paper in every dimension; of the boundary matrix in dimension 0, and above
        of the coboundary matrix, which has the same pairs and takes far less work.
        ``"spanning-tree"``: dimension 0 as a minimum spanning tree, from points in O(n) memory.
        ``"auto"``: the spanning tree in dimension 0; above, the coboundary matrix, reduced by a compiled function a
        column at a time (with clearing and apparent pairs: Bauer, *Ripser*, 2021), on the CPU for points on a GPU too.
        Every way gives the same. Under the transforms of
        ``torch.func``, all of them are ``"reduction"``; ``torch.vmap`` is not possible, since the number of classes
        depends on the numbers in the cloud.

    Returns
    -------
    list of PersistenceDiagram
        Index = dimension. Births and deaths have the dtype of the input (float32 for half precision) and are
        differentiable: each is the length of the longest edge of its simplex, of equal ones the last by (i, j), and
        has its gradient; that of ``distances`` goes to the entry (i, j), i < j, alone.

    Raises
    ------
    TypeError
        If ``points`` or ``distances`` is no floating-point tensor, or sparse, or an argument not of its type.
    ValueError
        If an argument is not as described, not exactly one of ``points`` and ``distances`` is given, or
        ``"spanning-tree"`` is asked for a ``max_dim`` above 0.
    MemoryError
        If the filtration has more simplices than can sensibly be built; raised before they are.

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> vr_persistence(square, max_dim=1)[1].points
    tensor([[1., 2.]])
    """
    max_dim = _dimension("max_dim", max_dim)
    algorithm = _algorithm("algorithm", algorithm)
    if algorithm == "spanning-tree" and max_dim > 0:
        raise ValueError(f"max_dim: got {max_dim}; algorithm 'spanning-tree' computes dimension 0 alone")
    p, max_length = check_p(p), _check_max_length(max_length)
    if (points is None) == (distances is None):
        given = "neither" if points is None else "both"
        raise ValueError(f"points, distances: got {given}; accepted is exactly one of them")
    if distances is not None:
        source = check_distances(distances, batches=False)
    else:
        assert points is not None
        source = _check_cloud(points)
    n = len(source)

    lengths = source if distances is not None else None
    order = None  # not needed for dimension 0 alone

    # Kruskal's algorithm reads the numbers themselves, which tensors in a transform of torch.func do not give.
    tree = algorithm != "reduction" and not in_transform(source)
    if tree and max_dim == 0:
        edges = merge_edges(points, p, distances=distances)
        length = _values(source, lengths, edges, p).detach()
        longest = math.inf if max_length is None else max_length
        all_pairs = [pairs_of_graph(n, edges[(length <= longest) & (length < math.inf)])]
    else:
        check_edges(n)
        matrix = symmetric_lengths(distances) if distances is not None else pairwise_lengths(source.detach(), p)
        radius = enclosing_radius(matrix) if max_length is None else max_length
        # the compiled function, which is on the CPU, takes a small part of the time that torch operations on a GPU take
        order = edge_order(matrix.cpu() if tree else matrix, radius)
        all_pairs = _pairs(order, max_dim, tree)
        if distances is None and only_backward(source) and not (source.requires_grad and torch.is_grad_enabled()):
            lengths = matrix  # nothing is differentiated

    # the edges whose lengths are the values of all diagrams, looked up at once; vertices are born at 0
    simplices = [(torch.cat((pairs.birth, pairs.essential)), pairs.death) for pairs in all_pairs]
    needed = [_longest_edges(order, part) for both in simplices for part in both if part.shape[1] > 1]
    value = iter(_values(source, lengths, torch.cat(needed).to(source.device), p).split([len(part) for part in needed]))
    diagrams = []
    for dim, (birth, death) in enumerate(simplices):
        essential = len(birth) - len(death)
        born = next(value) if dim > 0 else source.new_zeros(len(birth))
        values = torch.stack((born, _extend(next(value), essential, math.inf)), 1)
        both = (part.to(source.device) for part in (birth, _extend(death, essential, -1)))
        diagrams.append(PersistenceDiagram(dim, values, *both))
    return diagrams


def _values(source: Tensor, lengths: Tensor | None, edges: Tensor, p: float) -> Tensor:
    """Lengths of edges, from the matrix ``lengths`` if there is one, else from the points ``source``."""
    return edge_lengths(source, edges, p) if lengths is None else lengths[edges.unbind(1)]


def _extend(x: Tensor, rows: int, value: float) -> Tensor:
    return torch.cat((x, x.new_full((rows, *x.shape[1:]), value))) if rows > 0 else x


def _pairs(order: EdgeOrder, max_dim: int, tree: bool) -> list[Pairs]:
    """The pairs of each dimension; those of dimension 0 from a minimum spanning tree, or by reduction."""
    n = len(order.place)
    if max_dim > 0:
        Coboundary(order, max_dim)  # raises for a dimension that is too high, before work is spent on lower ones
    all_pairs = [(pairs_of_graph if tree else pairs_of_boundary)(n, order.edges)]
    if max_dim == 0:
        return all_pairs
    edges = all_pairs[0].death
    if tree:
        from corel.persistence.kernels.cohomology import numbers  # importing Numba takes long

        pairs_of = pairs_of_coboundary_by_column
        deaths = torch.from_numpy(numbers(order.level.numpy(), order.levels, edges.numpy()))
    else:
        pairs_of = pairs_of_coboundary
        deaths = Coboundary(order, 1).number(edges, order.level[edges[:, 0], edges[:, 1]])
    for simplices in vietoris_rips_filtration(order, max_dim):
        pairs, deaths = pairs_of(order, simplices, deaths)
        all_pairs.append(pairs)
    return all_pairs


def _longest_edges(order: EdgeOrder | None, vertices: Tensor) -> Tensor:
    """The last of the edges of each simplex of dimension ≥ 1: (k, size) → (k, 2)."""
    if vertices.shape[1] == 2:
        return vertices
    assert order is not None
    if is_plain_cpu(vertices):
        from corel.persistence.kernels.filtrations import longest_edges  # importing Numba takes long

        return torch.from_numpy(longest_edges(order.edges.numpy(), order.place.numpy(), vertices.numpy()))
    return order.edges[order.place[vertices.unsqueeze(2), vertices.unsqueeze(1)].amax((1, 2))]


_dimension = _checks.at_least(0)
_algorithm = _checks.one_of("auto", "spanning-tree", "reduction")
_length = _checks.optional(_checks.real("numbers of at least 0, and None", lambda value: value >= 0))


def _check_max_length(max_length: float | Tensor | None) -> float | None:
    if isinstance(max_length, Tensor) and max_length.dim() == 0 and not max_length.is_meta:
        max_length = max_length.item()  # such as a death time of another cloud
    max_length = _length("max_length", max_length)
    return None if max_length is None else float(max_length)


def _check_cloud(points: Tensor) -> Tensor:
    points = check_points(points, shape="(n, d)")
    if points.dim() != 2:
        raise ValueError(f"points: got shape {tuple(points.shape)}; accepted is (n, d)")
    if is_plain_cpu(points):
        from corel.persistence.kernels.lengths import are_finite  # importing Numba takes long

        finite = are_finite(_checks.numbers("points", points))
    else:
        finite = points.isfinite().all()
    if not finite:
        raise _checks.non_finite("points")
    return points
