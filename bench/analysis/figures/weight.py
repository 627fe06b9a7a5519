"""Fig. 5: the weight λ of the connectivity loss (§5.3)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.analysis import style
from bench.analysis.figures.branching import LOSSES, curve
from bench.analysis.figures.picture import Picture
from bench.analysis.figures.study import Study, about_all

#: The paper shows four values and names λ = 1, and 10 and more; its other experiments have λ = 20.
WEIGHTS = (1, 10, 20, 40)


def draw(study: Study) -> Picture:
    """Draw the connectivity loss over the iterations, and AUC over m."""
    figure = Figure(figsize=(7.2, 3.1))
    left, right = figure.subplots(1, 2)
    sizes = study.sizes
    histories, aucs, trainings, notes = [], [], [], []
    for place, weight in enumerate(WEIGHTS):
        change = f"corel.lam={weight}"
        training = study.training(change)
        auc, about = study.aucs(sizes, change)
        curve(left, training.history, "connectivity", place, f"λ = {weight}")
        spread, look = auc["auc_std"].fillna(0), {"color": style.COLOURS[place]}
        right.fill_between(
            auc["m"], auc["auc_mean"] - spread, auc["auc_mean"] + spread, alpha=0.15, linewidth=0, **look
        )
        right.plot(auc["m"], auc["auc_mean"], marker=style.MARKERS[place], markersize=4.5, linewidth=1.6,
                   linestyle=style.DASHES[place], **look)  # fmt: skip
        histories.append(training.history[["epoch", "iteration", "connectivity"]].assign(lam=weight))
        aucs.append(auc.assign(lam=weight))
        trainings.append(training)
        notes.append(about)
    style.plain_log_axis(left)
    left.set(xlabel="iteration", ylabel=LOSSES["connectivity"], xlim=(0, None))
    right.set(xscale="log", xlabel="training images per class, m", ylabel="AUC")
    right.set_xticks(sizes, [f"{m:,}" for m in sizes])
    right.xaxis.set_minor_locator(NullLocator())
    handles, labels = left.get_legend_handles_labels()
    for handle, marker in zip(handles, style.MARKERS, strict=False):
        handle.set_marker(marker)  # the points of the right picture
        handle.set_markevery([])
    figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=2.6)
    caption = (
        f"The weight λ of the connectivity loss. Left: that loss, without its weight, over the training on "
        f"{study.auxiliary.title}: every iteration faintly, and the running mean over an epoch. Right: mean one-class "
        f"AUC on {study.evaluated.title} over the number m of training images per class, with bands of ± one standard "
        f"deviation over {study.runs} runs. Paper: §5.3, Fig. 5, 10 ≤ m ≤ 5,000."
    )
    tables = {"": pd.concat(histories, ignore_index=True), "-auc": pd.concat(aucs, ignore_index=True)}
    return Picture(figure, tables, caption, [*about_all(trainings), *notes])
