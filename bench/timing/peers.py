"""Other libraries that compute 0-dimensional Rips persistence or single linkage, each through its fastest entry.

A call takes the points of one cloud, (n, d) float64, and does everything that is needed to get from them to the deaths
under L1: lengths and complex included. Where a library takes points as well as a matrix, the faster way is taken, and
that is mostly the matrix that scipy computes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib import metadata

import numpy as np
import torch

Call = Callable[[np.ndarray], object]


def _lengths() -> Call:
    from scipy.spatial.distance import pdist, squareform

    return lambda x: squareform(pdist(x, "cityblock"))


def ripser(max_dim: int) -> Call:
    """ripser.py up to a dimension."""
    from ripser import ripser

    lengths = _lengths()
    return lambda x: ripser(lengths(x), maxdim=max_dim, distance_matrix=True)["dgms"]


def _giotto_ph() -> Call:
    from gph import ripser_parallel

    lengths = _lengths()
    return lambda x: ripser_parallel(lengths(x), maxdim=0, metric="precomputed", n_threads=-1)["dgms"]


def _gudhi() -> Call:
    import gudhi
    from scipy.spatial.distance import pdist, squareform

    def call(x: np.ndarray) -> object:
        lengths = squareform(pdist(x, "cityblock"))
        tree = gudhi.SimplexTree.create_from_array(lengths, max_filtration=lengths.max(1).min())
        tree.compute_persistence(persistence_dim_max=True)
        return tree.persistence_intervals_in_dimension(0)

    return call


def _dionysus() -> Call:
    import dionysus
    from scipy.spatial.distance import pdist, squareform

    def call(x: np.ndarray) -> object:
        lengths = pdist(x, "cityblock")
        filtration = dionysus.fill_rips(lengths, 1, squareform(lengths).max(1).min())
        return dionysus.init_diagrams(dionysus.homology_persistence(filtration), filtration)[0]

    return call


def _oineus() -> Call:
    import oineus

    lengths = _lengths()

    def call(x: np.ndarray) -> object:
        filtration = oineus.vr_filtration(lengths(x), True, 1)
        decomposition = oineus.Decomposition(filtration, False)
        decomposition.reduce(oineus.ReductionParams())
        return decomposition.diagram(filtration).in_dimension(0)

    return call


def _torch_topological() -> Call:
    from torch_topological.nn import VietorisRipsComplex

    complex_ = VietorisRipsComplex(dim=0, p=1)
    return lambda x: complex_(torch.from_numpy(x))


def _scipy_tree() -> Call:
    from scipy.sparse.csgraph import minimum_spanning_tree

    lengths = _lengths()
    return lambda x: minimum_spanning_tree(lengths(x)).data


def _scipy_linkage() -> Call:
    from scipy.cluster.hierarchy import linkage

    return lambda x: linkage(x, "single", "cityblock")


def _scikit_learn() -> Call:
    from sklearn.cluster._hierarchical_fast import mst_linkage_core
    from sklearn.metrics import DistanceMetric

    metric = DistanceMetric.get_metric("manhattan")
    return lambda x: mst_linkage_core(x, metric)


def _fastcluster() -> Call:
    from fastcluster import linkage_vector

    return lambda x: linkage_vector(x, method="single", metric="cityblock")


# name: (module to import, distribution, what makes the call)
_PEERS: dict[str, tuple[str, str, Callable[[], Call]]] = {
    "ripser": ("ripser", "ripser", lambda: ripser(0)),
    "giotto-ph": ("gph", "giotto-ph", _giotto_ph),
    "gudhi": ("gudhi", "gudhi", _gudhi),
    "dionysus": ("dionysus", "dionysus", _dionysus),
    "oineus": ("oineus", "oineus", _oineus),
    "torch-topological": ("torch_topological", "torch-topological", _torch_topological),
    "scipy minimum_spanning_tree": ("scipy", "scipy", _scipy_tree),
    "scipy linkage": ("scipy", "scipy", _scipy_linkage),
    "scikit-learn mst_linkage_core": ("sklearn", "scikit-learn", _scikit_learn),
    "fastcluster linkage_vector": ("fastcluster", "fastcluster", _fastcluster),
}


def installed() -> tuple[dict[str, Call], dict[str, str], list[str]]:
    """The peers that can be imported, their versions, and a line for each of the others."""
    found, versions, missing = {}, {}, []
    for name, (module, distribution, make) in _PEERS.items():
        try:
            importlib.import_module(module)
            found[name] = make()
            versions[distribution] = metadata.version(distribution)
        except ImportError as error:
            missing.append(f"{name}: not installed ({error})")
    return found, versions, missing
