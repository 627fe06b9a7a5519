"""Spanning trees and their gradients on the CPU: from tensors to kernels, and the division of work among threads.

Kernels release the GIL and run on plain Python threads: Numba's own threading layers may neither be entered from
several threads at a time nor be used after a fork.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import torch

from corel._checks import non_finite, numbers
from corel._threads import run
from corel.persistence.kernels import distances, gradients, kd_trees, leaves, lockstep, small_clouds, trees
from corel.persistence.kernels.edges import kruskal, sort_tree
from corel.persistence.kernels.large_clouds import tree_of_blocks
from corel.persistence.kernels.vectors import LANES, LINE

#: Work, in pairs of points times coordinates and in entries of matrices, below which threads cost more than they save.
_WORTH_THREADS, _ENTRIES_WORTH_THREADS = 2_000_000, 500_000
#: How many times as long a coordinate takes where lengths are powers as for p ∈ {1, 2, ∞}.
_POWERS = 16
#: Clouds of more points than this are divided into blocks: under p = 1 always, since a screen in integers
#: (:mod:`.large_clouds`) then skips most distances; under other norms if they hold more coordinates than a block. From
#: the second number of points on, blocks go to several threads.
_LARGE, _LARGE_FOR_THREADS = 1500, 4000
#: Most coordinates in a block of a large cloud, and fewest points.
_BLOCK, _SMALLEST_BLOCK = 2**17, 256
#: In place of edges that are not wanted.
_NO_EDGES = np.empty((0, 2), np.int64)
#: From this many points on it is tried whether searches for neighbours are short, for so many leaves of a k-d tree.
_LARGE_FOR_SEARCHES, _TRIED = 8000, 8
#: Below this many points, a k-d tree of all of them is costly beside the algorithm in blocks: a tree of a sample is
#: tried first.
_TRY_FEW_BELOW = 20_000
#: Clouds of up to so many points per lane, and so many coordinates, advance in step with each other: on the processors
#: tried, larger ones were not faster together than one by one, and a group of them would fill more than 512 KiB.
_IN_STEP, _COORDINATES_IN_STEP = 32, 2**13


def spanning_trees(points: torch.Tensor, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimum spanning trees of a batch of clouds.

    Parameters
    ----------
    points
        (…, n, d) float32 or float64 on the CPU, n < 2³¹ − 1.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    tuple of ndarray
        Edges (…, n − 1, 2) int64 and their lengths (…, n − 1), sorted by (length, i, j), i < j.

    Raises
    ------
    ValueError
        If a coordinate is NaN or infinite.
    """
    if points.dim() == 2:
        n, d = points.shape
        if n <= _LARGE:
            edges = np.empty((n - 1, 2), np.int64)
            return edges, _small_tree(points, n, d, p, edges)
        edges, lengths = _trees(numbers("points", points)[None], p)
        return edges[0], lengths[0]
    clouds = numbers("points", points)
    shape = clouds.shape
    edges, lengths = _trees(clouds if len(shape) == 3 else clouds.reshape(-1, *shape[-2:]), p)
    if len(shape) != 3:
        trees = *shape[:-2], shape[-2] - 1
        edges, lengths = edges.reshape(*trees, 2), lengths.reshape(trees)
    return edges, lengths


def death_times(points: torch.Tensor, p: float) -> np.ndarray:
    """The lengths that :func:`spanning_trees` returns, without the edges where time can be saved by that."""
    if points.dim() == 2:
        n, d = points.shape
        if n <= _LARGE:
            return _small_tree(points, n, d, p, _NO_EDGES)
    return spanning_trees(points, p)[1]


def trees_of_distances(matrices: torch.Tensor) -> np.ndarray | None:
    """Minimum spanning trees of a batch of matrices of distances.

    Parameters
    ----------
    matrices
        (…, n, n) float32 or float64 on the CPU, 1 ≤ n < 2³¹ − 1.

    Returns
    -------
    ndarray or None
        Edges (…, n − 1, 2) int64, sorted by (length, i, j), i < j; None if a length is NaN or negative, or a matrix not
        symmetric to the last bit or not 0 on its diagonal.
    """
    *lead, n, _ = matrices.shape
    batch = math.prod(lead)
    array = numbers("distances", matrices).reshape(batch, n, n)
    edges, lengths = np.empty((batch, n - 1, 2), np.int64), np.empty((batch, n - 1), array.dtype)
    threads = torch.get_num_threads() if array.size > _ENTRIES_WORTH_THREADS else 1
    share = max(1, -(-batch // (4 * threads)))
    tasks = [
        partial(distances.spanning_trees, array, first, min(first + share, batch), edges, lengths)
        for first in range(0, batch, share)
    ]
    return edges.reshape(*lead, n - 1, 2) if all(run(tasks, threads)) else None


def lengths_backward(
    points: torch.Tensor, edges: torch.Tensor, lengths: torch.Tensor, weights: torch.Tensor, p: float
) -> torch.Tensor:
    """Gradient of Σ weights · lengths with respect to the points.

    Parameters
    ----------
    points, p
        As for :func:`spanning_trees`.
    edges, lengths
        (…, n − 1, 2) and (…, n − 1): what :func:`spanning_trees` gave.
    weights
        (…, n − 1), of the dtype of ``points``.

    Returns
    -------
    Tensor
        (…, n, d), of the dtype of ``points``.
    """
    gradient = np.empty(points.shape, lengths.numpy().dtype)
    *lead, n, d = points.shape
    clouds, trees = (math.prod(lead), n, d), (math.prod(lead), n - 1)
    gradients.lengths_backward(
        numbers("points", points).reshape(clouds),
        edges.numpy().reshape(*trees, 2),
        lengths.numpy().reshape(trees),
        numbers("weights", weights).reshape(trees),
        p,
        gradient.reshape(clouds),
    )
    return torch.from_numpy(gradient)


def connectivity(
    z: torch.Tensor, branches: int, eta: float, factor: float, p: float, with_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The connectivity loss ``factor`` · Σ |η − ε| over the deaths ε of all branches of a batch of codes (Eq. 4).

    Parameters
    ----------
    z
        (b, n) float32 or float64 on the CPU, b < 2³¹ − 1.
    branches
        Divides n.
    eta, factor, p
        Numbers; 1 ≤ p ≤ ∞.
    with_gradient
        Whether the gradient is wanted.

    Returns
    -------
    tuple of Tensor
        The loss, (); its gradient with respect to ``z``, (b, n), or (0, n) if it is not wanted; the merge edges,
        (branches, b − 1, 2) int64.

    Raises
    ------
    ValueError
        If a coordinate is NaN or infinite.
    """
    codes = numbers("z", z)
    b, n = codes.shape
    clouds = np.ascontiguousarray(codes.reshape(b, branches, n // branches).swapaxes(0, 1))
    edges, lengths = _trees(clouds, p, "z")
    loss, gradient = np.empty((), codes.dtype), np.empty((b, n) if with_gradient else (0, n), codes.dtype)
    by_branch = gradient.reshape(len(gradient), branches, n // branches)
    gradients.connectivity(clouds, edges, lengths, eta, factor, p, with_gradient, loss, by_branch)
    return torch.from_numpy(loss), torch.from_numpy(gradient), torch.from_numpy(edges)


def _small_tree(points: torch.Tensor, n: int, d: int, p: float, edges: np.ndarray) -> np.ndarray:
    """The spanning tree of one small cloud, with as little Python as possible, which for 32 points is half of the time.

    Parameters
    ----------
    points, n, d, p
        (n, d), n ≤ ``_LARGE``; else as for :func:`spanning_trees`.
    edges
        (n − 1, 2) int64, to which the edges are written, or ``_NO_EDGES``.

    Returns
    -------
    ndarray
        Their lengths, (n − 1,).
    """
    if not points.is_contiguous():
        points = points.contiguous()
    lengths = np.empty(n - 1, np.float32 if points.dtype is torch.float32 else np.float64)
    address = points.data_ptr()  # a lazily negated tensor is read as its negative: lengths are the same
    if address == 0:
        raise ValueError("points: got a tensor whose memory was freed; accepted are tensors that hold numbers")
    if not small_clouds.spanning_tree(p, address, d, edges, lengths):
        raise non_finite("points")
    return lengths


def _trees(clouds: np.ndarray, p: float, name: str = "points") -> tuple[np.ndarray, np.ndarray]:
    """:func:`spanning_trees` of clouds (B, n, d); ``name`` is what errors call them."""
    batch, n, d = clouds.shape
    edges, lengths = np.empty((batch, n - 1, 2), np.int64), np.empty((batch, n - 1), clouds.dtype)
    work = batch * n * n * d // 2 * (1 if p in (1.0, 2.0, math.inf) else _POWERS)
    threads = torch.get_num_threads() if work > _WORTH_THREADS else 1
    if n >= _LARGE_FOR_SEARCHES and (searches := _short_searches(clouds, p, threads)):
        finite = True  # else there would be no searches
        for each in zip(searches, edges, lengths, strict=True):
            tree_by_searches(*each)
    elif n > _LARGE and (p == 1.0 or n * d > _BLOCK):
        finite = all(_tree_in_blocks(*each, p, threads) for each in zip(clouds, edges, lengths, strict=True))
    elif batch == 1:
        finite = small_clouds.spanning_trees(p, clouds, 0, 1, edges, lengths)
    else:
        finite = _trees_of_batch(clouds, edges, lengths, p, threads)
    if not finite:
        raise non_finite(name)
    return edges, lengths


def _trees_of_batch(clouds: np.ndarray, edges: np.ndarray, lengths: np.ndarray, p: float, threads: int) -> bool:
    """Write the spanning trees of a batch of small clouds. Returns whether all points are finite."""
    batch, n, d = clouds.shape
    lanes = LINE // clouds.itemsize
    together = 0  # how many clouds, from the first on, advance in step
    if p in (1.0, 2.0, math.inf) and n <= _IN_STEP * lanes and n * d <= _COORDINATES_IN_STEP:
        rest = batch % lanes
        together = batch if 2 * rest > lanes else batch - rest
        if threads > 1 and together < lanes * threads:  # some threads would have nothing to do
            together = 0
    share = -(-batch // (4 * threads)) if threads > 1 else batch
    tasks = [
        partial(kernel.spanning_trees, p, clouds, first, min(first + step, stop), edges, lengths)
        for kernel, start, stop, step in (
            (lockstep, 0, together, -(-share // lanes) * lanes),
            (small_clouds, together, batch, share),
        )
        for first in range(start, stop, max(step, 1))
    ]
    return all(run(tasks, threads))


def _tree_in_blocks(cloud: np.ndarray, tree: np.ndarray, lengths: np.ndarray, p: float, threads: int) -> bool:
    """Write the spanning tree of one cloud to ``tree`` and ``lengths``. Returns whether all points are finite."""
    n = len(cloud)
    if n < _LARGE_FOR_THREADS:
        threads = 1
    blocks = max(-(-cloud.size // _BLOCK), 1 if threads == 1 else 2 * math.ceil(math.sqrt(threads / 2)))
    blocks = min(blocks, n // _SMALLEST_BLOCK)
    bounds = [n * block // blocks for block in range(blocks + 1)]
    pieces = [(a, b) for a in range(blocks) for b in range(a, blocks)]
    pieces.sort(key=lambda piece: piece[0] == piece[1])  # graphs between two blocks take twice as long: begin with them
    sizes = [bounds[a + 1] - bounds[a] - 1 + (bounds[b + 1] - bounds[b] if a != b else 0) for a, b in pieces]
    starts = list(itertools.accumulate(sizes, initial=0))
    candidates, keys = np.empty(starts[-1], np.int64), np.empty(starts[-1], cloud.dtype)

    tasks = []
    for (a, b), start, stop in zip(pieces, starts, starts[1:], strict=False):
        ends = bounds[a], bounds[a + 1], bounds[b], bounds[b + 1]
        tasks.append(partial(tree_of_blocks, p, cloud, *ends, candidates[start:stop], keys[start:stop]))
    if not all(run(tasks, threads)):
        return False
    kruskal(candidates, keys, tree, lengths)
    return True


def tree_by_searches(searches: Searches, tree: np.ndarray, lengths: np.ndarray) -> None:
    """Write the spanning tree of one cloud to ``tree`` and ``lengths``."""
    searches.list_neighbours()
    n = len(tree) + 1
    edges, keys = np.empty(n - 1, np.int64), np.empty_like(lengths)
    found, components = 0, n
    while components > 1:
        found, components = searches.merge(components, edges, keys, found)
    sort_tree(edges, keys, tree, lengths)


def _short_searches(clouds: np.ndarray, p: float, threads: int) -> list[Searches]:
    """Searches among the points of each cloud; none if another way takes less time than :func:`tree_by_searches`."""
    all_searches: list[Searches] = []
    for cloud in clouds:
        if not np.isfinite(cloud).all():
            return []
        if len(cloud) < _TRY_FEW_BELOW and cloud.shape[1] > 4:
            few = np.ascontiguousarray(cloud[:: len(cloud) // 2000])
            if Searches(few, p, 1).sample_cost()[0] > 0.8 * len(few):  # cheaply told: searches visit nearly all points
                return []
        searches = Searches(cloud, p, threads)
        offered, visited = searches.sample_cost()
        # Nanoseconds per point, summed over threads: pairs with all n points in blocks on the left, searches on the
        # right. Single points are searched for only where many lengths are equal, which means more such searches later.
        pair, visit = (0.15, 40) if p in (1.0, math.inf) else (0.25, 40) if p == 2.0 else (2.0, 10)
        if len(cloud) * pair <= 200 * threads + 200 + 3.5 * pair * offered + visit * visited:
            return []
        all_searches.append(searches)
    return all_searches


class Searches:
    """A k-d tree of a cloud of finite points, and the forest that grows on it (:mod:`.trees`)."""

    def __init__(self, cloud: np.ndarray, p: float, threads: int) -> None:
        (n, d), dtype = cloud.shape, cloud.dtype
        self.p, self.threads, self.leaves = p, threads, -(-n // LANES)
        depth = (self.leaves - 1).bit_length()
        nodes = np.zeros((2 ** (depth + 1) - 1, 2), np.int32)
        nodes[0] = 0, self.leaves
        tiles, boxes = np.empty((self.leaves, d, LANES), dtype), np.empty((len(nodes), 2, d), dtype)
        self.tree = np.arange(n, dtype=np.int32), tiles, nodes, boxes
        spare = np.empty(n, dtype), np.empty(n, dtype), np.empty(n, np.int32)
        top = min((threads - 1).bit_length(), depth)
        for level in range(top + 1):
            # from the level on that has a node for each thread, all below a node is one task
            levels = 1 if level < top else depth + 1 - top
            level_nodes = range(2**level - 1, 2 ** (level + 1) - 1)
            run([partial(kd_trees.grow, cloud, self.tree, spare, node, levels) for node in level_nodes], threads)
        kd_trees.enclose(self.tree)

        near, length = np.empty((n, leaves.NEAR), np.int32), np.empty((n, leaves.NEAR), dtype)
        following, low, last, bound = np.empty(n, np.int32), np.empty(n, dtype), np.empty(n, dtype), np.empty(n, dtype)
        self.forest = np.arange(n, dtype=np.int32), near, length, following, low, last, bound, np.empty(n, np.int32)
        self.node_component, self.points = np.full(len(nodes), -1, np.int32), np.empty(n, np.int32)

    def sample_cost(self) -> tuple[float, float]:
        """Mean number of points offered to a leaf, and visited in a search for a single point, over a sample."""
        step = max(1, self.leaves // _TRIED)
        offered, visited = self._search_leaves(0, self.leaves, step)
        tried = len(range(0, self.leaves, step))
        return offered / tried, visited / (tried * LANES)

    def list_neighbours(self) -> None:
        """List the nearest neighbours of all points."""
        share = -(-self.leaves // (4 * self.threads))
        ranges = [(first, min(first + share, self.leaves)) for first in range(0, self.leaves, share)]
        run([partial(self._search_leaves, first, stop, 1) for first, stop in ranges], self.threads)

    def _search_leaves(self, first: int, stop: int, step: int) -> Any:
        return trees.search_leaves(self.tree, self.node_component, self.forest, self.p, first, stop, step)

    def merge(self, components: int, edges: np.ndarray, lengths: np.ndarray, found: int) -> tuple[int, int]:
        """Add the least edge of each component; arguments and what is returned are as for :func:`.trees.merge`."""
        *by_point, bound, least = self.forest
        forest = *by_point, bound[:components], least[:components]
        points = self.points[: trees.begin(self.tree, self.node_component, forest, self.points)]
        share = max(64, -(-len(points) // (4 * self.threads)))
        shares = [points[first : first + share] for first in range(0, len(points), share)]
        searches = [partial(trees.search, self.tree, self.node_component, forest, self.p, each) for each in shares]
        run(searches, self.threads)
        return trees.merge(self.tree[0], forest, points, components, edges, lengths, found)
