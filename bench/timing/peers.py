"""Other libraries that compute 0-dimensional Rips persistence or single linkage, each through its fastest entry.

A call takes the points of one cloud, (n, d) float64, and does everything that is needed to get from them to the deaths:
lengths and complex included. Where a library takes points as well as a matrix, the faster way is taken, and that is
mostly the matrix that scipy computes. Libraries with threads use as many as torch does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch

Call = Callable[[np.ndarray], Any]

#: scipy's names of the norms that peers are compared under.
METRICS = {1.0: "cityblock", 2.0: "euclidean", math.inf: "chebyshev"}


def _matrix(p: float) -> Call:
    from scipy.spatial.distance import pdist, squareform

    return lambda x: squareform(pdist(x, METRICS[p]))


def ripser(p: float, max_dim: int = 0) -> Call:
    """ripser.py up to a dimension."""
    from ripser import ripser

    lengths = _matrix(p)
    return lambda x: ripser(lengths(x), maxdim=max_dim, distance_matrix=True)["dgms"]


def _giotto_ph(p: float) -> Call:
    from gph import ripser_parallel

    lengths, threads = _matrix(p), torch.get_num_threads()
    return lambda x: ripser_parallel(lengths(x), maxdim=0, metric="precomputed", n_threads=threads)["dgms"]


def _gudhi(p: float) -> Call:
    import gudhi

    matrix = _matrix(p)

    def call(x: np.ndarray) -> Any:
        lengths = matrix(x)
        tree = gudhi.SimplexTree.create_from_array(lengths, max_filtration=lengths.max(1).min())
        tree.compute_persistence(persistence_dim_max=True)
        return tree.persistence_intervals_in_dimension(0)

    return call


def _dionysus(p: float) -> Call:
    import dionysus
    from scipy.spatial.distance import pdist, squareform

    def call(x: np.ndarray) -> Any:
        lengths = pdist(x, METRICS[p])
        filtration = dionysus.fill_rips(lengths, 1, squareform(lengths).max(1).min())
        return dionysus.init_diagrams(dionysus.homology_persistence(filtration), filtration)[0]

    return call


def _oineus(p: float) -> Call:
    import oineus

    lengths = _matrix(p)

    def call(x: np.ndarray) -> Any:
        filtration = oineus.vr_filtration(lengths(x), True, 1)
        decomposition = oineus.Decomposition(filtration, False)
        decomposition.reduce(oineus.ReductionParams())
        return decomposition.diagram(filtration).in_dimension(0)

    return call


def _torch_topological(p: float) -> Call:
    from torch_topological.nn import VietorisRipsComplex

    complex_ = VietorisRipsComplex(dim=0, p=p)
    return lambda x: complex_(torch.from_numpy(x))


def _persist0_batch(p: float) -> Call:
    from persist0 import h0_batched
    from scipy.spatial.distance import cdist

    os.environ.setdefault("RAYON_NUM_THREADS", str(torch.get_num_threads()))  # read at the first call

    def call(x: np.ndarray) -> Any:
        lengths = np.stack([cdist(cloud, cloud, METRICS[p]) for cloud in x]).astype(np.float32)
        edges = h0_batched(lengths)
        return lengths[np.arange(len(x))[:, None], edges[..., 0], edges[..., 1]]

    return call


def _persist0(p: float) -> Call:
    call = _persist0_batch(p)
    return lambda x: call(x[None])[0]


def _scipy_tree(p: float) -> Call:
    from scipy.sparse.csgraph import minimum_spanning_tree

    lengths = _matrix(p)
    return lambda x: minimum_spanning_tree(lengths(x)).data


def _scipy_linkage(p: float) -> Call:
    from scipy.cluster.hierarchy import linkage

    return lambda x: linkage(x, "single", METRICS[p])


def _scikit_learn(p: float) -> Call:
    from sklearn.cluster._hierarchical_fast import mst_linkage_core
    from sklearn.metrics import DistanceMetric

    metric = DistanceMetric.get_metric(METRICS[p])
    return lambda x: mst_linkage_core(x, metric)


def _fastcluster(p: float) -> Call:
    from fastcluster import linkage_vector

    # its name for p = ∞ is spelled otherwise
    return lambda x: linkage_vector(x, method="single", metric=METRICS[p].replace("chebyshev", "chebychev"))


def _quitefastmst(algorithm: str) -> Callable[[float], Call]:
    def make(p: float) -> Call:
        import quitefastmst

        quitefastmst.omp_set_num_threads(torch.get_num_threads())
        return lambda x: quitefastmst.mst_euclid(x, algorithm=algorithm)[0]

    return make


def _fast_hdbscan(p: float) -> Call:
    from fast_hdbscan.boruvka import parallel_boruvka
    from fast_hdbscan.numba_kdtree import build_kdtree
    from numba import config, set_num_threads

    threads = min(torch.get_num_threads(), config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    set_num_threads(threads)
    no_weights = np.empty(1, np.float32)
    return lambda x: parallel_boruvka(build_kdtree(x.astype(np.float32)), threads, 1, no_weights, False)[0]


@dataclass(frozen=True)
class Peer:
    """One library: ``make`` and ``make_batch`` import it and return, for a norm, the call on a cloud or on a batch."""

    name: str
    distribution: str
    make: Callable[[float], Call]
    norms: tuple[float, ...] = tuple(METRICS)
    make_batch: Callable[[float], Call] | None = None


#: A new peer is a new entry.
PEERS = [
    Peer("ripser", "ripser", ripser),
    Peer("giotto-ph", "giotto-ph", _giotto_ph),
    Peer("gudhi", "gudhi", _gudhi),
    Peer("dionysus", "dionysus", _dionysus),
    Peer("oineus", "oineus", _oineus),
    Peer("torch-topological", "torch-topological", _torch_topological),
    Peer("persist0, float32", "persist0-tda", _persist0, make_batch=_persist0_batch),
    Peer("scipy minimum_spanning_tree", "scipy", _scipy_tree),
    Peer("scipy linkage", "scipy", _scipy_linkage),
    Peer("scikit-learn mst_linkage_core", "scikit-learn", _scikit_learn),
    Peer("fastcluster linkage_vector", "fastcluster", _fastcluster),
    Peer("quitefastmst, k-d tree", "quitefastmst", _quitefastmst("auto"), norms=(2.0,)),
    Peer("quitefastmst, brute force", "quitefastmst", _quitefastmst("brute"), norms=(2.0,)),
    Peer("fast_hdbscan Borůvka, float32", "fast-hdbscan", _fast_hdbscan, norms=(2.0,)),
]


@dataclass(frozen=True)
class Ready:
    """The calls of a peer that is installed, under one norm."""

    name: str
    one: Call
    batch: Call | None


def installed(p: float) -> tuple[list[Ready], dict[str, str], list[str]]:
    """The peers that can be called under ‖·‖p, their versions, and a line for each of the others."""
    found, versions, left_out = [], {}, []
    for peer in PEERS:
        if p not in peer.norms:
            left_out.append(f"{peer.name}: not compared, it knows p = {', '.join(f'{q:g}' for q in peer.norms)} alone")
            continue
        threads = torch.get_num_threads()
        try:
            ready = Ready(peer.name, peer.make(p), None if peer.make_batch is None else peer.make_batch(p))
            versions[peer.distribution] = metadata.version(peer.distribution)
        except Exception as error:  # one built for another numpy, say, may fail by any error while it is imported
            left_out.append(f"{peer.name}: not installed ({error})")
            continue
        finally:
            torch.set_num_threads(threads)  # Numba's OpenMP layer, once started, gives every library all cores
        found.append(ready)
    return found, versions, left_out
