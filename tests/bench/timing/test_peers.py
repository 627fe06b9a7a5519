"""The peers of the runtime study: that they compute what ours does, under every norm that they know."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import corel
from bench.timing import peers

PAIRS = [(peer, p) for peer in peers.PEERS for p in peers.METRICS if p in peer.norms]
#: Distributions that this package needs: their peers are always there.
REQUIRED = ("scipy", "scikit-learn")


@pytest.fixture(scope="module")
def installed():
    """By norm, the peers that are installed, by name, and a line for each of the others."""
    return {p: ({peer.name: peer for peer in ready}, others) for p in peers.METRICS
            for ready, _, others in [peers.installed(p)]}  # fmt: skip


def deaths_of(name: str, result: object) -> np.ndarray:
    """Sorted finite deaths in what a peer returns."""
    if name in ("ripser", "giotto-ph"):
        deaths = result[0][:, 1]
    elif name in ("gudhi", "oineus"):
        deaths = np.asarray(result)[:, 1]
    elif name == "dionysus":
        deaths = np.array([point.death for point in result])
    elif name == "torch-topological":
        deaths = result[0].diagram[:, 1].numpy()
    else:  # deaths alone, or a linkage
        deaths = np.asarray(result)
        deaths = deaths[:, 2] if deaths.ndim == 2 and deaths.shape[1] > 2 else deaths.ravel()
    return np.sort(deaths[np.isfinite(deaths)])


@pytest.mark.parametrize(("listed", "p"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_peers_compute_what_ours_does(installed, listed, p):
    ready, others = installed[p]
    name = listed.name
    if name not in ready:
        (reason,) = [line for line in others if line.startswith(f"{name}: not installed")]
        assert listed.distribution not in REQUIRED, reason
        pytest.skip(reason)
    points = np.random.default_rng(0).normal(size=(3, 40, 10))
    expected = corel.death_times(torch.from_numpy(points), p).numpy()
    peer = ready[name]
    assert deaths_of(name, peer.one(points[0])) == pytest.approx(expected[0], rel=1e-5)
    if peer.batch is not None:
        assert np.sort(peer.batch(points)) == pytest.approx(expected, rel=1e-5)


def test_peers_that_cannot_be_compared_are_named(monkeypatch):
    def broken(p):
        raise AttributeError("built for another numpy")

    euclidean = peers.Peer("euclidean", "numpy", lambda p: len, norms=(2.0,))
    monkeypatch.setattr(peers, "PEERS", [peers.Peer("broken", "numpy", broken), euclidean])
    assert peers.installed(math.inf) == (
        [],
        {},
        ["broken: not installed (built for another numpy)", "euclidean: not compared, it knows p = 2 alone"],
    )
    found, versions, _ = peers.installed(2.0)
    assert ([peer.name for peer in found], versions) == (["euclidean"], {"numpy": np.__version__})


def test_a_peer_that_changes_the_number_of_threads_changes_it_for_nobody_else(monkeypatch):
    threads = torch.get_num_threads()

    def greedy(p):
        torch.set_num_threads(threads + 1)
        return len

    def broken(p):
        torch.set_num_threads(threads + 2)
        raise AttributeError("built for another numpy")

    monkeypatch.setattr(peers, "PEERS", [peers.Peer("greedy", "numpy", greedy), peers.Peer("broken", "numpy", broken)])
    assert [peer.name for peer in peers.installed(2.0)[0]] == ["greedy"]
    assert torch.get_num_threads() == threads
