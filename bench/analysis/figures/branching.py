"""Fig. 4: a code of 160 dimensions, in branches and in one piece (§5.3)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis import style
from bench.analysis.figures.picture import Picture
from bench.analysis.figures.study import Study, about_all

#: Branches and the dimension of each, with the AUC for m = 5,000 of the paper's text, CIFAR-100 → CIFAR-10.
BRANCHES = {(16, 10): 0.78, (32, 5): 0.75, (1, 160): 0.70}
LOSSES = {"connectivity": "connectivity loss, mean of branches", "reconstruction": "reconstruction loss"}


def curve(axes: Axes, history: pd.DataFrame, column: str, place: int, label: str) -> None:
    """A loss at every iteration, faint, and its running mean over an epoch."""
    steps = int((history["epoch"] == 1).sum())
    smooth = history[column].rolling(steps, min_periods=1, center=True).mean()
    colour = style.COLOURS[place]
    axes.plot(history["iteration"], history[column], color=colour, linewidth=0.7, alpha=0.35)
    axes.plot(history["iteration"], smooth, color=colour, linestyle=style.DASHES[place], linewidth=1.8, label=label)


def draw(study: Study) -> Picture:
    """Draw both losses over the iterations."""
    figure = Figure(figsize=(7.2, 3.1))
    panels = figure.subplots(1, 2)
    m = study.sizes[-1]
    histories, aucs, trainings, notes = [], [], [], []
    for place, (branches, dim) in enumerate(BRANCHES):
        changes = [f"corel.branches={branches}", f"corel.branch_dim={dim}"]
        training = study.training(*changes)
        auc, about = study.aucs([m], *changes)
        auc_mean = auc["auc_mean"].iloc[0]
        name = f"{branches} × {dim}" if branches > 1 else f"no branches, {dim}"
        for axes, column in zip(panels, LOSSES, strict=True):
            curve(axes, training.history, column, place, f"{name} (AUC {auc_mean:.3f})")
        shape = {"branches": branches, "branch_dim": dim}
        histories.append(training.history[["epoch", "iteration", *LOSSES]].assign(**shape))
        aucs.append(auc.assign(**shape))
        trainings.append(training)
        notes.append(about)
    for axes, label in zip(panels, LOSSES.values(), strict=True):
        style.plain_log_axis(axes)
        axes.set(xlabel="iteration", ylabel=label, xlim=(0, None))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=2.6)
    text = ", ".join(f"{auc:.2f} for {b} × {d}" for (b, d), auc in BRANCHES.items())
    caption = (
        f"Connectivity and reconstruction loss over the training on {study.auxiliary.title}, with the 160 dimensions "
        "of the code in branches (number × dimension) and in one piece: every iteration faintly, and the running mean "
        f"over an epoch. In the legend, the mean one-class AUC on {study.evaluated.title} for m = {m}. Paper: §5.3, "
        f"Fig. 4, with the AUCs {text} (CIFAR-10, m = 5,000, encoder of CIFAR-100)."
    )
    tables = {"": pd.concat(histories, ignore_index=True), "-auc": pd.concat(aucs, ignore_index=True)}
    return Picture(figure, tables, caption, [*about_all(trainings), *notes])
