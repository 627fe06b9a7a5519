"""``python -m bench.precision``: ADT's AUC in float32 beside those with scoring, or all, in bfloat16."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from bench import cells, datasets, environment, report, statistics
from bench._command_line import Parser, positive_int, run, whole_number, writable_directory
from bench.datasets import Dataset
from bench.execute import Options, available_cores, execute
from bench.store import Store
from corel.checkpoint import write_atomically

PROGRAM = "bench.precision"
#: Precision of training and, for each, what its network is scored in.
SCORED_IN = {"float32": "both", "bfloat16": "bfloat16"}

#: What the table calls each (training's, scoring's) precision. The first two are of the same network.
ARRANGEMENTS = {
    ("float32", "float32"): "float32",
    ("float32", "bfloat16"): "bfloat16 scoring",
    ("bfloat16", "bfloat16"): "bfloat16",
}


def fewer_test_images(dataset: Dataset, count: int, folder: Path) -> Dataset:
    """The dataset with ``count`` of its test images, equally many of each class but for rounding.

    Parameters
    ----------
    folder
        Where its arrays are kept.
    """
    labels = np.asarray(dataset.test_labels)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # of an image among those of its class
    for index in range(len(dataset.classes)):
        of_class = order[labels[order] == index]
        rank[of_class] = np.arange(len(of_class))
    chosen = np.sort(np.lexsort((labels, rank))[:count])
    smaller = dataclasses.replace(
        dataset,
        title=f"{dataset.title}, {count} test images",
        fingerprint=cells.digest([dataset.fingerprint, chosen.tolist()]),
        folder=folder,
    )
    arrays = {
        "train-images": dataset.train_images,
        "train-labels": dataset.train_labels,
        "test-images": dataset.test_images[chosen],
        "test-labels": labels[chosen],
    }
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        if isinstance(array, np.memmap):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(Path(str(array.filename)).resolve())
        else:
            write_atomically(path, functools.partial(_save, array=array))
    return smaller


def _save(stream: IO[bytes], array: np.ndarray) -> None:
    np.save(stream, array)


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per run, class and score, with the AUC of each of :data:`ARRANGEMENTS`; NaN where it is not there yet.

    Parameters
    ----------
    rows
        As :func:`bench.statistics.by_variant` gives them, with the column training, the precision of that.
    """
    parts = [variant.partition(" in ") for variant in rows["variant"]]
    named = rows.assign(
        score=[score for score, _, _ in parts],
        arrangement=[
            ARRANGEMENTS[training, scoring or SCORED_IN[training]]
            for training, (_, _, scoring) in zip(rows["training"], parts, strict=True)
        ],
    )
    keys = ["run", "class", "class_name", "score"]
    table = named.pivot(index=keys, columns="arrangement", values="auc").reindex(columns=list(ARRANGEMENTS.values()))
    table.columns.name = None
    return table.reset_index().drop(columns="class")


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """Mean AUC, over classes and runs, and what bfloat16 changes: mean and standard error of the difference.

    Parameters
    ----------
    table
        As :func:`compare` gives it. Scoring is judged on the same network; two trainings part ways at the first
        rounding, so that they also differ by what another seed would change.
    """
    records = []
    for score, group in table.groupby("score"):
        for arrangement in ARRANGEMENTS.values():
            difference = (group[arrangement] - group["float32"]).dropna()
            records.append(
                {
                    "score": score,
                    "arrangement": arrangement,
                    "mean AUC": group[arrangement].mean(),
                    "mean difference": difference.mean(),
                    "standard error": difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) else np.nan,
                    "largest": difference.abs().max(),
                    "classes and runs": len(difference),
                }
            )
    means = pd.DataFrame(records)
    means.loc[means["arrangement"] == "float32", ["mean difference", "standard error", "largest"]] = np.nan
    return means


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Train ADT's paper profile in float32 and score it in float32 and in bfloat16; do all in bfloat16 "
        "on the same draws; compare AUCs. Finished cells are kept in OUT/cells.sqlite; what is finished is reported "
        "at Ctrl-C too.",
    )
    add = parser.add_argument
    add("--dataset", default="cifar10", help="dataset (default: cifar10)")
    add("--train-per-class", type=positive_int, default=120, metavar="M", help="images per class (default: 120)")
    add("--test-images", type=positive_int, default=1000, metavar="N", help="test images (default: 1000)")
    add("--classes", nargs="+", metavar="CLASS", help="names or numbers of the classes to run (default: all)")
    add("--runs", type=positive_int, default=1, help="draws per class (default: 1)")
    add("--data-root", default="data", metavar="DIR", help="folder of the datasets (default: data)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--seed", type=whole_number, default=0, help="base seed (default: 0)")
    add("--out", default="results", metavar="DIR", help="folder for precision.csv and precision.md (default: results)")
    options = parser.parse_args(arguments)
    environment.git_commit()  # of the code that runs, not of what is there when it ends
    out = writable_directory(options.out, ["precision.csv", "precision.md"])
    writable_directory(out / "cache")
    datasets.check_name(options.dataset, "--dataset")
    whole = datasets.load(options.dataset, data_root=options.data_root)
    if options.test_images > len(whole.test_labels):
        raise ValueError(f"--test-images: got {options.test_images}; {whole.name} has {len(whole.test_labels)}")
    folder = out / "cache" / "precision" / f"{whole.fingerprint[:32]}-{options.test_images}"
    dataset = fewer_test_images(whole, options.test_images, folder)
    paper = cells.method_spec("adt", "paper")
    specs = {
        training: dataclasses.replace(
            paper, settings={**paper.settings, "precision": scored_in, "training_precision": training}
        )
        for training, scored_in in SCORED_IN.items()
    }
    plans = {
        training: cells.plan(
            dataset,
            [spec],
            auxiliary=None,
            train_per_class=[options.train_per_class],
            runs=options.runs,
            classes=dataset.class_indices(options.classes),
            base_seed=options.seed,
        )
        for training, spec in specs.items()
    }
    pairs = [cell for pair in zip(*plans.values(), strict=True) for cell in pair]
    interrupted = False
    with Store(out / "cells.sqlite") as store:
        try:
            execute(
                pairs,
                {dataset.name: dataset},
                store,
                Options(out / "cache", options.device, available_cores(), 1, None),
            )
        except KeyboardInterrupt:
            interrupted = True
        rows = []
        for training, plan in plans.items():
            keys = [cell.key for cell in plan]
            rows.append(statistics.by_variant(plan, store.finished(keys)).assign(training=training))
        origins = report.origins(store.finished(cell.key for cell in pairs))
        failed = store.failed([cell.key for cell in pairs])
    for error in failed.itertuples():
        print(f"failed: {error.cell}: {error.error}")
    finished = pd.concat(rows)
    if len(finished):
        table = compare(finished)
        shown, differences = table.map(_four_digits), effects(table).map(_four_digits)
        produced = [
            f"{dataset.title}, m = {options.train_per_class}, base seed {options.seed}.",
            f"Produced by: {environment.command(PROGRAM, arguments)}",
        ]
        report.write_csv(out / "precision.csv", table)
        title, means = "# AUC of ADT in float32 and in bfloat16", "Means over classes and runs, and differences:"
        paragraphs = [title, report.to_markdown(shown), means, report.to_markdown(differences), *produced, *origins]
        report.write_text(out / "precision.md", "\n\n".join(paragraphs) + "\n")
        print(f"{report.to_text(shown)}\n\n{means}\n{report.to_text(differences)}\n")
        print("\n".join(produced), f"Written to {out}: precision.csv, precision.md", sep="\n")
    if interrupted:
        done = sum(len(group[["run", "class"]].drop_duplicates()) for group in rows)
        raise KeyboardInterrupt(f"{done} of {len(pairs)} cells are finished and kept")
    return 1 if len(failed) else 0


def _four_digits(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.4f}"


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
