"""Connectivity-optimised representation learning (Hofer, Kwitt, Dixit, Niethammer, ICML 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corel import theory
from corel.autoencoder import Autoencoder, BranchedLinear
from corel.loss import ConnectivityLoss
from corel.persistence.diagram import PersistenceDiagram
from corel.persistence.spanning_tree import death_times, merge_edges
from corel.persistence.vietoris_rips import vr_persistence
from corel.training import train_autoencoder

if TYPE_CHECKING:
    from corel.ball_count import BallCount

__all__ = [
    "Autoencoder",
    "BallCount",
    "BranchedLinear",
    "ConnectivityLoss",
    "PersistenceDiagram",
    "death_times",
    "merge_edges",
    "theory",
    "train_autoencoder",
    "vr_persistence",
]


def __getattr__(name: str) -> Any:
    # imported when first asked for: it is a scikit-learn estimator, and importing scikit-learn takes a second
    if name == "BallCount":
        from corel.ball_count import BallCount

        return BallCount
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
