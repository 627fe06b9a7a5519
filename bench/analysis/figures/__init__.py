"""The paper's figures, and two more. To add one: a file beside this one, and an entry in the table.

A file has the function ``draw(study, **options)``, which returns a :class:`~bench.analysis.figures.picture.Picture`;
what it needs of data, trainings and rows it asks of the :class:`~bench.analysis.figures.study.Study`. The files are
imported when they are asked for: a command can list the names at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Entry:
    """One figure: the module that draws it, what it shows, and further arguments of ``draw``."""

    module: str
    shows: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


FIGURES: Mapping[str, Entry] = {
    "fig2": Entry(
        "three_gaussians", "three Gaussians, mapped by a network that only the connectivity loss has trained"
    ),
    "fig4": Entry("branching", "both losses over the training, with and without branches"),
    "fig5": Entry("weight", "the weight λ: connectivity loss over the training, and AUC over m"),
    "fig6": Entry("transfer", "mean deaths per branch on the training's dataset and on another one", {"place": 0}),
    "fig7": Entry("runtime", "the runtime study"),
    "fig8": Entry("transfer", "mean deaths per branch, beside a second other dataset", {"place": 1}),
    "neighbours": Entry("neighbours", "neighbours within β̂ that points have, against Corollary 1"),
    "barcode": Entry("barcode", "what training does to the barcode of a batch, also as an animated picture"),
}
