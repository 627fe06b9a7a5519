"""Connectivity-optimised representation learning (Hofer, Kwitt, Dixit, Niethammer, ICML 2019)."""

from __future__ import annotations

from importlib import import_module
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
    from corel.plotting import plot_barcode, plot_diagram

__all__ = [
    "Autoencoder",
    "BallCount",
    "BranchedLinear",
    "ConnectivityLoss",
    "PersistenceDiagram",
    "death_times",
    "merge_edges",
    "plot_barcode",
    "plot_diagram",
    "theory",
    "train_autoencoder",
    "vr_persistence",
]


def __getattr__(name: str) -> Any:
    # imported when first asked for, since importing scikit-learn or matplotlib takes long
    module = {"BallCount": "ball_count", "plot_barcode": "plotting", "plot_diagram": "plotting"}.get(name)
    if module is not None:
        return getattr(import_module(f"corel.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
