"""``python -m bench.verify_pairings``: death times and merge edges of many random clouds against gudhi's."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from bench.engine.command_line import Parser, positive_int, run
from corel import death_times, merge_edges, vr_persistence
from corel.persistence.metric import pairwise_lengths

PROGRAM = "bench.verify_pairings"

#: Of so many clouds, two (one of them with ties) go through ``vr_persistence`` too: Algorithm 3, dimensions 0 and 1.
REDUCTION_EVERY = 20
#: Differences that are described; all are counted.
SHOWN = 10


@dataclass(frozen=True)
class Cloud:
    """A random cloud, and how to speak of it."""

    points: torch.Tensor
    p: float
    kind: str

    def __str__(self) -> str:
        n, d = self.points.shape
        return f"{n} points in R^{d}, p = {self.p:g}, {str(self.points.dtype).removeprefix('torch.')}, {self.kind}"


def draw_cloud(seed: int, index: int) -> Cloud:
    """Cloud number ``index``: 1 to 64 points in 1 to 12 dimensions; one in five has ties or duplicates."""
    rng = np.random.default_rng([seed, index])
    n, d = int(rng.integers(1, 65)), int(rng.integers(1, 13))
    x = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-3, 3)
    kind = "unlike lengths"
    if index % 5 == 0:
        kind = str(rng.choice(["grid", "duplicates", "duplicates on a grid", "one point"]))
        if "grid" in kind:
            x = rng.integers(-3, 4, (n, d)).astype(np.float64)
        if "duplicates" in kind:
            x = x[rng.integers(0, 1 + n // 2, n)]
        if kind == "one point":
            x[:] = x[0]
    dtype = (torch.float32, torch.float64)[int(rng.integers(2))]
    p = (1.0, 2.0, math.inf)[int(rng.integers(3))]
    return Cloud(torch.from_numpy(x).to(dtype), p, kind)


def differences(cloud: Cloud, gudhi: Any, ripser: Any | None, with_reduction: bool) -> list[str]:
    """What is different about this cloud, in words; empty where all agrees.

    Lengths are computed once, in the cloud's own precision, and given to all: equality is exact.
    """
    lengths = pairwise_lengths(cloud.points, cloud.p).numpy()
    radius = float(lengths.max(1).min())
    top = 1 if with_reduction else 0
    tree = gudhi.SimplexTree.create_from_array(lengths, max_filtration=radius)
    tree.expansion(top + 1)
    tree.compute_persistence(homology_coeff_field=2, min_persistence=-1, persistence_dim_max=True)
    theirs = tree.persistence_intervals_in_dimension(0)[:, 1]
    theirs = np.sort(theirs[np.isfinite(theirs)])

    found = []
    deaths = death_times(cloud.points, cloud.p).numpy()
    if not np.array_equal(np.sort(deaths.astype(np.float64)), theirs):
        found.append("deaths differ from gudhi's")
    edges = {tuple(edge) for edge in merge_edges(cloud.points, cloud.p).tolist()}
    between = lengths[np.triu_indices(len(lengths), 1)]
    unique = len(np.unique(between)) == len(between)
    their_edges = {tuple(sorted(death)) for birth, death in tree.persistence_pairs() if len(birth) == 1 and death}
    if unique and edges != their_edges:
        found.append("merge edges differ from gudhi's")
    if ripser is not None:
        # in single precision, and without deaths at 0, which it does not report
        intervals = ripser(lengths, maxdim=0, distance_matrix=True)["dgms"][0][:, 1]
        single = deaths.astype(np.float32)
        if not np.array_equal(
            np.sort(single[single > 0]), np.sort(intervals[np.isfinite(intervals) & (intervals > 0)])
        ):
            found.append("deaths differ from ripser's")
    if with_reduction:
        for dim, diagram in enumerate(vr_persistence(cloud.points, p=cloud.p, max_dim=top, algorithm="reduction")):
            intervals = tree.persistence_intervals_in_dimension(dim).reshape(-1, 2)
            expected = sorted(
                map(tuple, (intervals if dim == 0 else intervals[intervals[:, 1] > intervals[:, 0]]).tolist())
            )
            if sorted(map(tuple, diagram.points.tolist())) != expected:
                found.append(f"diagram of dimension {dim} differs from gudhi's")
            if dim == 0 and unique:
                finite = diagram.death_simplices[:, 0] >= 0
                if {tuple(edge) for edge in diagram.death_simplices[finite].tolist()} != their_edges:
                    found.append("death simplices of dimension 0 differ from gudhi's")
    return found


def _peer(name: str, needed_by: str) -> Any:
    """The module ``name``."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{needed_by} needs {name}: pip install 'corel[peers]' ({error})") from None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are whole numbers of at least 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 if there is any difference."""
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Compare deaths and pairings of random clouds of 1 to 64 points with gudhi's, exactly. "
        f"Two of {REDUCTION_EVERY} clouds are also reduced by Algorithm 3 in dimensions 0 and 1.",
    )
    add = parser.add_argument
    add("--clouds", type=positive_int, default=10_000, metavar="N", help="number of clouds (default: 10000)")
    add("--seed", type=_seed, default=0, help="seed of the clouds (default: 0)")
    add("--ripser", action="store_true", help="compare deaths with ripser's too, in single precision")
    options = parser.parse_args(arguments)
    gudhi = _peer("gudhi", PROGRAM)
    ripser = _peer("ripser", "--ripser").ripser if options.ripser else None

    wrong = tied = done = 0
    try:
        for index in tqdm(range(options.clouds), unit="cloud", file=sys.stderr):
            cloud = draw_cloud(options.seed, index)
            tied += cloud.kind != "unlike lengths"
            found = differences(cloud, gudhi, ripser, index % REDUCTION_EVERY in (0, 1))
            done += 1
            if found:
                wrong += 1
                if wrong <= SHOWN:
                    tqdm.write(f"cloud {index} ({cloud}): {'; '.join(found)}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{wrong} of {done} clouds differ") from None
    against = f"gudhi {gudhi.__version__}" + (" and ripser" if ripser else "")
    print(f"{wrong} of {done} clouds differ from {against} ({tied} with ties or duplicates; seed {options.seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
