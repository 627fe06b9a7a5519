"""Spanning trees and their gradients on the CPU: from tensors to kernels, and the division of work among threads.

Kernels release the GIL and run on plain Python threads: Numba's own threading layers may neither be entered from
several threads at a time nor be used after a fork.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import torch

from corel._threads import all_true
from corel.persistence.kernels import distances, gradients, lockstep, small_clouds, trees
from corel.persistence.kernels.edges import kruskal
from corel.persistence.kernels.large_clouds import tree_of_blocks
from corel.persistence.kernels.vectors import LINE

#: Work, in pairs of points times coordinates and in entries of matrices, below which threads cost more than they save.
_WORTH_THREADS, _ENTRIES_WORTH_THREADS = 2_000_000, 500_000
#: What a coordinate costs where lengths are powers, in place of p ∈ {1, 2, ∞}.
_POWERS = 16
#: Clouds of more points than this are divided into blocks; from this many points on, blocks go to several threads.
_LARGE, _LARGE_FOR_THREADS = 1500, 4000
#: Most coordinates in a block of a large cloud, and fewest points.
_BLOCK, _SMALLEST_BLOCK = 2**17, 256
#: From this many points on it is tried whether searches for neighbours are short, among so many of them.
_LARGE_FOR_SEARCHES, _SAMPLES = 8000, (1000, 4000)
#: Clouds of up to so many points per lane, and so many coordinates, advance in step with each other: on the processors
#: tried, larger ones were not faster together than one by one, and a group of them would fill more than 512 KiB.
_IN_STEP, _COORDINATES_IN_STEP = 32, 2**13
#: Points in a leaf of a k-d tree, about; neighbours of a point that are listed.
_LEAF, _NEAR = 16, 8


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
    clouds = _array(points)
    if clouds.ndim == 2:
        edges, lengths = _trees(clouds[None], p)
        return edges[0], lengths[0]
    shape = clouds.shape
    edges, lengths = _trees(clouds if len(shape) == 3 else clouds.reshape(-1, *shape[-2:]), p)
    if len(shape) != 3:
        trees = *shape[:-2], shape[-2] - 1
        edges, lengths = edges.reshape(*trees, 2), lengths.reshape(trees)
    return edges, lengths


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
    array = _array(matrices).reshape(batch, n, n)
    edges, lengths = np.empty((batch, n - 1, 2), np.int64), np.empty((batch, n - 1), array.dtype)
    threads = torch.get_num_threads() if array.size > _ENTRIES_WORTH_THREADS else 1
    share = max(1, -(-batch // (4 * threads)))
    tasks = [
        partial(distances.spanning_trees, array, first, min(first + share, batch), edges, lengths)
        for first in range(0, batch, share)
    ]
    return edges.reshape(*lead, n - 1, 2) if all_true(tasks, threads) else None


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
        _array(points).reshape(clouds),
        edges.numpy().reshape(*trees, 2),
        lengths.numpy().reshape(trees),
        _array(weights).reshape(trees),
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
    codes = _array(z)
    b, n = codes.shape
    clouds = np.ascontiguousarray(codes.reshape(b, branches, n // branches).swapaxes(0, 1))
    edges, lengths = _trees(clouds, p, "z")
    loss, gradient = np.empty((), codes.dtype), np.empty((b, n) if with_gradient else (0, n), codes.dtype)
    by_branch = gradient.reshape(len(gradient), branches, n // branches)
    gradients.connectivity(clouds, edges, lengths, eta, factor, p, with_gradient, loss, by_branch)
    return torch.from_numpy(loss), torch.from_numpy(gradient), torch.from_numpy(edges)


def _array(x: torch.Tensor) -> np.ndarray:
    # the conditions avoid calls of half a microsecond each, which count where the cloud is small
    if not x.is_contiguous():
        x = x.contiguous()
    return x.detach().numpy() if x.requires_grad else x.numpy()


def _trees(clouds: np.ndarray, p: float, name: str = "points") -> tuple[np.ndarray, np.ndarray]:
    """:func:`spanning_trees` of clouds (B, n, d); ``name`` is what errors call them."""
    batch, n, d = clouds.shape
    edges, lengths = np.empty((batch, n - 1, 2), np.int64), np.empty((batch, n - 1), clouds.dtype)
    work = batch * n * n * d // 2 * (1 if p in (1.0, 2.0, math.inf) else _POWERS)
    threads = torch.get_num_threads() if work > _WORTH_THREADS else 1
    if n >= _LARGE_FOR_SEARCHES and all(_searches_are_short(cloud, p, threads) for cloud in clouds):
        finite = all(tree_by_searches(*each, p, threads) for each in zip(clouds, edges, lengths, strict=True))
    elif n > _LARGE and (p == 1.0 or n * d > _BLOCK):
        finite = all(_tree_in_blocks(*each, p, threads) for each in zip(clouds, edges, lengths, strict=True))
    elif batch == 1:
        finite = small_clouds.spanning_trees(p, clouds, 0, 1, edges, lengths)
    else:
        finite = _trees_of_batch(clouds, edges, lengths, p, threads)
    if not finite:
        raise ValueError(f"{name}: got NaN or infinity; all coordinates must be finite")
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
    return all_true(tasks, threads)


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
    if not all_true(tasks, threads):
        return False
    kruskal(candidates, keys, tree, lengths)
    return True


def _searches_are_short(cloud: np.ndarray, p: float, threads: int) -> bool:
    """Whether :func:`tree_by_searches` takes less time than the other ways: judged by searches among fewer points."""
    n = len(cloud)
    if not np.isfinite(cloud).all():
        return False
    pair = 0.25 if p in (1.0, math.inf) else 0.5 if p == 2.0 else 2.0  # nanoseconds, as all here
    before, expected = math.inf, 0.0
    for size in _SAMPLES:
        searches = _Searches(np.ascontiguousarray(cloud[:: n // size]), p)
        step = len(searches.points) // 64
        looked = searches.search(_NEAR, 0, 64 * step, step) / 64
        # what searches look at grows with the points; how fast, two samples tell
        growth = max(0.0, math.log(looked / before) / math.log(size / _SAMPLES[0])) if before < math.inf else 0.0
        before, expected = looked, looked * (n / size) ** growth
        if n * pair <= 400 * threads + 400 + 20 * expected:
            return False
    return True


def tree_by_searches(cloud: np.ndarray, tree: np.ndarray, lengths: np.ndarray, p: float, threads: int) -> bool:
    """Write the spanning tree of one cloud of finite points to ``tree`` and ``lengths``. Returns True."""
    n = len(cloud)
    searches = _Searches(cloud, p)
    edges, keys = np.empty(n - 1, np.int64), np.empty(n - 1, cloud.dtype)
    found, components, wanted, share = 0, n, _NEAR, -(-n // (4 * threads))
    while components > 1:
        searches.begin(components)
        tasks = [partial(searches.search, wanted, first, min(first + share, n), 1) for first in range(0, n, share)]
        all_true(tasks, threads)
        found, components = trees.merge(searches.names, searches.forest, components, edges, keys, found)
        wanted = 1
    kruskal(edges, keys, tree, lengths)
    return True


class _Searches:
    """A k-d tree of a cloud of finite points, and the forest that grows on it (:mod:`.trees`)."""

    def __init__(self, cloud: np.ndarray, p: float) -> None:
        from sklearn.neighbors import KDTree  # importing it takes long

        points, self.names, nodes, boxes = KDTree(cloud, leaf_size=_LEAF).get_arrays()
        n, dtype = len(cloud), cloud.dtype
        self.p, self.points = p, points[self.names].astype(dtype)
        self.nodes = np.stack((nodes["idx_start"], nodes["idx_end"]), 1)
        self.boxes = np.stack(tuple(boxes), 1).astype(dtype)
        self.same = np.full(len(nodes), -1)
        near, length = np.full((n, _NEAR), -1), np.empty((n, _NEAR), dtype)
        bound = np.full(n, math.inf, dtype)
        self.forest = np.arange(n), near, length, np.full(n, _NEAR), np.zeros(n, dtype), bound

    def begin(self, components: int) -> None:
        self.forest = *self.forest[:-1], self.forest[-1][:components]
        trees.begin(self.points, self.nodes, self.same, self.forest, self.p)

    def search(self, wanted: int, first: int, stop: int, step: int) -> int:
        tree = self.points, self.names, self.nodes, self.boxes, self.same
        return trees.search(*tree, self.forest, self.p, wanted, first, stop, step)
