"""Whether corel and its peers agree: random clouds to compare them on, and the differences for one cloud.

Every size class that the code distinguishes is among the clouds: small ones, more than 1,024 points (above which a GPU
takes another algorithm), and several thousand (which the CPU cuts into blocks and gives to threads). The searches in a
k-d tree, which the CPU prefers for large clouds in few dimensions, are tried on all of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import corel
from bench.timing import inputs
from corel.persistence.kernels.cpu import Searches, tree_by_searches
from corel.persistence.metric import pairwise_lengths

#: Of every 20 clouds two, one of them with ties, go through ``vr_persistence`` too: Algorithm 3, dimensions 0 and 1.
REDUCTION_EVERY = 20
#: Every 100th cloud is of the second size class, every 500th of the third.
MEDIUM_EVERY, LARGE_EVERY = 100, 500
#: Sizes of the three classes; the interpreter of GPU kernels is slow, and its kernels have two.
SIZES = ((1, 64), (1025, 2000), (4000, 5000))
SIZES_INTERPRETED = ((1, 24), (1025, 1040), (1041, 1056))
UNTIED, TIED = ("gaussian", "sheet", "clusters"), ("grid", "duplicates", "duplicates on a grid", "one point")

#: Edges of a batch of clouds, (B, n, d) on the CPU → (B, n − 1, 2).
MergeEdges = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Cloud:
    """A random cloud, with its description for messages."""

    points: torch.Tensor
    p: float
    kind: str

    def __str__(self) -> str:
        n, d = self.points.shape
        return f"{n} points in R^{d}, p = {self.p:g}, {str(self.points.dtype).removeprefix('torch.')}, {self.kind}"


def draw_cloud(seed: int, index: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> Cloud:
    """Cloud number ``index``, in 1 to 24 dimensions; one in five has ties or duplicates.

    Of the largest ones each is of another kind than the one before.
    """
    rng = np.random.default_rng([seed, index])
    number, large = divmod(index, LARGE_EVERY)
    size_class = 2 if large == LARGE_EVERY - 1 else 1 if index % MEDIUM_EVERY == MEDIUM_EVERY - 1 else 0
    n, d = int(rng.integers(sizes[size_class][0], sizes[size_class][1] + 1)), int(rng.integers(1, 25))
    if size_class > 0:
        kinds = (*UNTIED, *TIED[:-1])  # peers would need the whole complex of many equal points
        kind = kinds[number % len(kinds)] if size_class == 2 else str(rng.choice(kinds))
    else:
        kind = str(rng.choice(TIED if index % 5 == 0 else UNTIED))
    if kind in UNTIED:
        x = inputs.KINDS[kind](rng, n, d) * 10.0 ** rng.uniform(-3, 3)
    elif "grid" in kind:
        x = rng.integers(0, math.ceil((4 * n) ** (1 / d)), (n, d)).astype(np.float64)
    else:
        x = rng.normal(size=(n, d))
    if "duplicates" in kind:
        x = x[rng.integers(0, 1 + n // 2, n)]
    if kind == "one point":
        x[:] = x[0]
    dtype = (torch.float32, torch.float64)[int(rng.integers(2))]
    p = (1.0, 2.0, math.inf)[int(rng.integers(3))]
    return Cloud(torch.from_numpy(x).to(dtype), p, kind)


def edges_on(device: torch.device) -> MergeEdges:
    """``merge_edges`` on a device."""
    return lambda points, p: corel.merge_edges(points.to(device), p).cpu()


def interpreted_edges() -> MergeEdges:
    """The GPU's ``merge_edges``, its Triton kernels run by Triton's interpreter on the CPU.

    Raises
    ------
    ImportError
        If Triton is not installed.
    ValueError
        If the environment did not ask for the interpreter before Triton was imported.
    """
    from triton import knobs

    from corel.persistence.kernels.triton_kernels import merge_edges

    if not knobs.runtime.interpret:
        raise ValueError(f"TRITON_INTERPRET: got {os.environ.get('TRITON_INTERPRET')!r}; the interpreter needs 1")
    return merge_edges


def differences(cloud: Cloud, gudhi: Any, ripser: Any, others: MergeEdges, reduce: bool = False) -> list[str]:
    """What is different about this cloud, in words; empty where all agrees.

    Lengths are computed once, in the cloud's own precision, and given to all: equality is exact.

    Parameters
    ----------
    gudhi, ripser
        The module, and the function.
    others
        What gives the same edges for a batch: on another device, or on this one.
    reduce
        Compare Algorithm 3 in dimensions 0 and 1 too.
    """
    found = []
    points, p = cloud.points, cloud.p
    edges, deaths = corel.merge_edges(points, p), corel.death_times(points, p).numpy()
    # powers of two round nothing: all clouds of the batch have the same edges
    batch = others(torch.stack([points, 2 * points]), p)
    if not all(torch.equal(of_one, edges) for of_one in batch):
        found.append("merge edges of a batch differ from those of one cloud on the CPU")

    if len(points) > 1:
        n = len(points)
        by_searches = np.empty((n - 1, 2), np.int64), np.empty(n - 1, deaths.dtype)
        tree_by_searches(Searches(points.numpy(), p, torch.get_num_threads()), *by_searches)
        if not (np.array_equal(by_searches[0], edges) and np.array_equal(by_searches[1], deaths)):
            found.append("searches in a k-d tree give another tree")

    lengths = pairwise_lengths(points, p).numpy()
    # of a large cloud, peers get the edges up to the longest death: if it were too short, components would remain
    whole = len(points) <= SIZES[0][1]
    radius = float(lengths.max(1).min() if whole else deaths.max())
    top = 1 if reduce else 0
    tree = gudhi.SimplexTree.create_from_array(lengths, max_filtration=radius)
    tree.expansion(top + 1)
    # without an edge, the top dimension is the one that is wanted
    tree.compute_persistence(homology_coeff_field=2, min_persistence=-1, persistence_dim_max=len(points) == 1)
    theirs = tree.persistence_intervals_in_dimension(0)[:, 1]
    if not np.array_equal(np.sort(deaths.astype(np.float64)), np.sort(theirs[np.isfinite(theirs)])):
        found.append("deaths differ from gudhi's")
    between = lengths[np.triu_indices(len(lengths), 1)]
    between = between[between <= radius]
    unique = len(np.unique(between)) == len(between)
    their_edges = {tuple(sorted(death)) for birth, death in tree.persistence_pairs() if len(birth) == 1 and death}
    if unique and {tuple(edge) for edge in edges.tolist()} != their_edges:
        found.append("merge edges differ from gudhi's")

    # ripser computes in single precision, and does not report deaths at 0
    limit = math.inf if whole else float(np.nextafter(np.float32(radius), np.float32(math.inf)))
    theirs = ripser(lengths, maxdim=0, thresh=limit, distance_matrix=True)["dgms"][0][:, 1]
    single = deaths.astype(np.float32)
    if not np.array_equal(np.sort(single[single > 0]), np.sort(theirs[np.isfinite(theirs) & (theirs > 0)])):
        found.append("deaths differ from ripser's")
    if reduce:
        found += _reduction_differences(cloud, tree, their_edges if unique else None)
    return found


def _reduction_differences(cloud: Cloud, tree: Any, their_edges: set[tuple[int, ...]] | None) -> list[str]:
    """Of Algorithm 3 from gudhi's reduced ``tree``, in dimensions 0 and 1, and of the compiled reduction from it."""
    found = []
    compiled = corel.vr_persistence(cloud.points, p=cloud.p, max_dim=1)
    for dim, diagram in enumerate(corel.vr_persistence(cloud.points, p=cloud.p, max_dim=1, algorithm="reduction")):
        intervals = tree.persistence_intervals_in_dimension(dim).reshape(-1, 2)
        kept = intervals if dim == 0 else intervals[intervals[:, 1] > intervals[:, 0]]
        if sorted(map(tuple, diagram.points.tolist())) != sorted(map(tuple, kept.tolist())):
            found.append(f"diagram of dimension {dim} differs from gudhi's")
        if dim == 0 and their_edges is not None:
            finite = diagram.death_simplices[:, 0] >= 0
            if {tuple(edge) for edge in diagram.death_simplices[finite].tolist()} != their_edges:
                found.append("death simplices of dimension 0 differ from gudhi's")
        parts = ("points", "birth_simplices", "death_simplices")
        if not all(torch.equal(getattr(diagram, part), getattr(compiled[dim], part)) for part in parts):
            found.append(f"the compiled reduction differs from Algorithm 3 in dimension {dim}")
    return found
