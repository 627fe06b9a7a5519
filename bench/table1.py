"""``python -m bench.table1``: the paper's Table 1, one-vs-all AUC of every method on every dataset."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench import data
from bench.analysis import statistics, tables
from bench.engine import provenance
from bench.engine.command_line import (
    Parser,
    positive_int,
    run,
    thread_count,
    train_per_class,
    whole_number,
    writable_directory,
)
from bench.engine.cells import Cell, MethodSpec, method_spec, plan
from bench.data import Dataset
from bench.engine.cores import available_cores, default_threads
from bench.engine.execute import Options, execute
from bench.engine.store import Store

PROGRAM = "bench.table1"


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Compute one-vs-all AUCs under the protocol of the paper's §5.2 and print them as a table. "
        "Finished cells are kept in OUT/cells.sqlite and never run again.",
    )
    add = parser.add_argument
    add("--datasets", nargs="+", default=["digits"], metavar="NAME",
        help=f"any of {', '.join(data.names())}, folder:PATH (default: digits)")  # fmt: skip
    add("--methods", nargs="+", metavar="NAME",
        help="names, sklearn:NAME[@ENCODER], pyod:NAME[@ENCODER], FILE.py:CLASS (default: all available)")  # fmt: skip
    add("--train-per-class", nargs="+", type=train_per_class, default=[120], metavar="M",
        help="training images per class: numbers, or all (default: 120)")  # fmt: skip
    add("--auxiliary", metavar="NAME",
        help="dataset whose unlabelled training images the shared autoencoder learns from (default: the paper's "
        "choice for each dataset; digits and folders use their own)")  # fmt: skip
    add("--runs", type=positive_int, default=5, help="draws of M images per class (default: 5)")
    add("--classes", nargs="+", metavar="CLASS", help="names or numbers of the classes to run (default: all)")
    add("--profile", default="quick", help="quick or paper (default: quick)")
    add("--data-root", default="data", metavar="DIR", help="folder of the datasets (default: data)")
    add("--download", action="store_true", help="fetch CIFAR files that are not there")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--workers", type=positive_int, metavar="N",
        help="processes that run cells; 1: this process alone (default: cores / threads, 1 on a GPU)")  # fmt: skip
    add("--threads", type=thread_count, metavar="N",
        help="CPU threads of a cell; results may differ in the last digits with another number "
        "(default: 1 in the quick profile, every core in the paper's)")  # fmt: skip
    add("--scheduler", metavar="ADDRESS", help="run cells on the Dask cluster at ADDRESS; it must see OUT and the data")
    add("--seed", type=whole_number, default=0, help="base seed of every draw and training (default: 0)")
    add("--out", default="results", metavar="DIR", help="folder for the results (default: results)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.workers is not None and options.scheduler is not None:
        parser.error("argument --scheduler: not allowed with argument --workers")
    out = writable_directory(options.out, ["table1.csv", "table1.md", "cells.csv"])
    writable_directory(out / "cache")
    started = time.perf_counter()
    provenance.git_commit()  # of the code that runs, not of what is there when it ends

    # What is cheap to check comes first: a wrong name must not cost a decoding of images.
    import methods
    from corel._device import resolve_device

    device = resolve_device(options.device)
    specs = [method_spec(name, options.profile) for name in _unique(options.methods or methods.available())]
    for name in _unique(options.datasets):
        data.check_name(name, "--datasets")
    if options.auxiliary is not None:
        data.check_name(options.auxiliary, "--auxiliary")
    threads = options.threads or default_threads(options.profile)
    workers = options.workers or (1 if device.type == "cuda" else max(1, available_cores() // threads))

    loaded: dict[str, Dataset] = {}
    cells = _cells(options, specs, loaded)
    with Store(out / "cells.sqlite") as store:
        keys = [cell.key for cell in cells]
        kept = len(store.finished(keys))
        try:
            ran, failures = execute(
                cells,
                loaded,
                store,
                Options(out / "cache", options.device, threads, workers, options.scheduler),
            )
        except KeyboardInterrupt:
            finished = len(store.finished(keys))
            raise KeyboardInterrupt(f"{finished} of {len(cells)} cells are finished and kept") from None
        finished, failed = store.finished(keys), store.failed(keys)
        failed = failed.set_index("key").reindex([key for key in keys if key in set(failed["key"])]).reset_index()
        trained = store.auxiliaries(cell.auxiliary_key for cell in cells if cell.method.needs_auxiliary)

    table = tables.build(
        cells,
        finished,
        failed,
        {name: dataset.title for name, dataset in loaded.items()},
        {name: len(dataset.classes) for name, dataset in loaded.items()},
    )
    text = tables.for_people(table)
    produced = _produced_by(options, table, trained, arguments)
    # before a line of it is printed: whoever reads along may go
    rows = statistics.by_variant(cells, finished)
    _write(out, table, text, rows, failed, options.profile, [*produced, *tables.origins(finished)])
    print(tables.to_text(text))
    print("\n" + "\n".join(produced))
    for error in failed.itertuples():
        print(f"failed: {error.cell}: {error.error}")
    print(
        f"{ran} cells run ({failures} failed), {kept} taken from {out / 'cells.sqlite'}, "
        f"{time.perf_counter() - started:.0f} s; written to {out}: table1.csv, table1.md, cells.csv"
    )
    return 1 if len(failed) else 0


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _cells(options: argparse.Namespace, specs: Sequence[MethodSpec], loaded: dict[str, Dataset]) -> list[Cell]:
    """Load the datasets that are asked for into ``loaded`` and plan the cells."""

    def load(name: str) -> Dataset:
        if name not in loaded:
            loaded[name] = data.load(name, data_root=options.data_root, download=options.download)
        return loaded[name]

    cells: list[Cell] = []
    for name in _unique(options.datasets):
        dataset = load(name)
        auxiliary = None
        if any(spec.needs_auxiliary for spec in specs):
            auxiliary = load(data.default_auxiliary(name) if options.auxiliary is None else options.auxiliary)
        cells += plan(
            dataset,
            specs,
            auxiliary=auxiliary,
            train_per_class=_unique(options.train_per_class),
            runs=options.runs,
            classes=dataset.class_indices(options.classes),
            base_seed=options.seed,
        )
    return cells


def _produced_by(
    options: argparse.Namespace, table: pd.DataFrame, trained: pd.DataFrame, arguments: Sequence[str] | None
) -> list[str]:
    """Lines that say what produced the table."""
    lines = [
        f"Profile {options.profile!r}, base seed {options.seed}; AUC: mean over classes, then mean ± standard "
        f"deviation over {options.runs} run{'s' if options.runs > 1 else ''}; fit and score: mean seconds per cell.",
    ]
    if options.profile != "paper":
        lines.append("The quick profile trains briefly: compare only numbers of the 'paper' profile with the paper's.")
    if (table["variant"] == "oracle").any():
        lines.append("(oracle): the best of a grid, picked by test AUC as the reference does; no honest selection.")
    for row in trained.itertuples():
        lines.append(f"Shared autoencoder of {row.method} on {row.auxiliary}: {row.seconds:.0f} s, {row.device}.")
    lines.append(f"Produced by: {provenance.command(PROGRAM, arguments)}")
    return lines


def _write(
    out: Path,
    table: pd.DataFrame,
    text: pd.DataFrame,
    rows: pd.DataFrame,
    failed: pd.DataFrame,
    profile: str,
    produced: Sequence[str],
) -> None:
    shown = table.copy()
    shown.insert(5, "profile", profile)
    tables.write_csv(out / "table1.csv", shown)
    tables.write_csv(out / "cells.csv", rows)
    errors = [f"Failed: {row.cell}: {row.error}" for row in failed.itertuples()]
    paragraphs = ["# One-vs-all AUC (Table 1)", tables.to_markdown(text), *produced, *errors]
    tables.write_text(out / "table1.md", "\n\n".join(paragraphs) + "\n")


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
