"""``python -m bench.table1``: the paper's Table 1, one-vs-all AUC of every method on every dataset."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engine.arguments import PROGRAM, portable_command, table1_parser
from bench.engine.command_line import loading, run, writable_directory

if TYPE_CHECKING:
    from bench.data import Dataset
    from bench.engine.cells import Cell

# Libraries that take seconds to load come within functions: a wrong option is answered before them.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = table1_parser().parse_args(arguments)
    started = time.monotonic()

    with loading():
        import methods
        from bench.analysis import gallery, page, tables
        from bench.analysis.progress import RowsAsTheyFinish
        from bench.engine import overview, provenance, published
        from bench.engine.cells import printable
        from bench.engine.cores import available_cores, default_threads
        from bench.engine.execute import Options, execute
        from bench.engine.store import STORE_FILE, Store
        from corel._device import resolve_device

    if options.list:
        print(overview.listing(options.methods or methods.available(), options.data_root))
        return 0
    provenance.git_commit()  # cached now: the working tree may change while cells are computed
    out = Path(options.out)
    published.check_kind(options.out, run=True, argument="--out")
    if not options.dry_run:
        writable_directory(options.out, ["table1.csv", "table1.md", "classes.csv", "cells.csv"])
        writable_directory(out / "cache")
        writable_directory(out / "page", ["index.html", "report.md", "constraints.txt"])
        writable_directory(out / "page" / "figures")
    on_gpu = not options.scheduler and resolve_device(options.device).type == "cuda"  # a cluster has its own devices
    taken = published.merge([(name, published.read_rows(name, "--from")) for name in options.published])
    datasets, cells = _plan(options)
    threads = options.threads or default_threads(options.profile)
    workers = options.workers or (1 if on_gpu or options.scheduler else max(1, available_cores() // threads))
    command = printable(portable_command(options))

    with Store.copy(out / STORE_FILE) if options.dry_run else Store(out / STORE_FILE, command) as store:
        keys = [cell.key for cell in cells]
        there = len(store.finished(keys))
        store.take(taken, cells)
        if options.dry_run:
            print(overview.forecast(cells, store.rows(), workers, options.retry_failed))
            return 0
        kept, failed_before = set(store.finished(keys)["key"]), set(store.failed(keys)["key"])
        wanted = [cell for cell in cells if options.retry_failed or cell.key not in failed_before]
        deadline = None if options.limit_hours is None else started + 3600 * options.limit_hours
        rows_shown = RowsAsTheyFinish(cells, store, failed_before - {cell.key for cell in wanted})
        try:
            ran, failures = execute(
                wanted,
                datasets,
                store,
                Options(out / "cache", options.device, threads, workers, options.scheduler, deadline=deadline),
                on_cell=rows_shown.on_cell,
            )
        except KeyboardInterrupt:
            finished = len(store.finished(keys))
            raise KeyboardInterrupt(f"{finished} of {len(cells)} cells are finished and kept") from None
        rows = store.of(cells)
        trained = store.auxiliaries(cell.auxiliary_key for cell in cells if cell.method.needs_auxiliary)

    # All files are written before anything is printed: printing ends the process if the output pipe is closed.
    table = tables.write(out, rows, trained, [command])
    tables.write_cells(out / "cells.csv", rows)
    here = "auto" if options.scheduler else options.device
    images = gallery.write(out / gallery.FILE, rows, out / "cache", datasets.__getitem__, here)
    page.write(out / "page", rows, trained, [command], [options.out], images)
    print(tables.to_text(tables.for_people(table)))
    print("\n" + "\n".join(tables.notes(table, trained, [command])))
    failed = rows[rows["error"].notna()]
    for row in failed.itertuples():
        print(f"failed: {row.cell}: {row.error}")
    if failed_before and not options.retry_failed:
        print(f"{len(failed_before)} cells failed before and were not run again; --retry-failed runs them")
    missing = int((rows["aucs"].isna() & rows["error"].isna()).sum())
    if missing:
        print(f"stopped by --limit-hours: {missing} of {len(cells)} cells are left for another run")
    sources = [str(out / STORE_FILE)] * (there > 0 or not kept) + ["--from"] * (len(kept) > there)
    print(
        f"{ran} cell{'s' * (ran != 1)} run ({failures} failed), {len(kept)} taken from {' and '.join(sources)}, "
        f"{time.monotonic() - started:.0f} s; written to {out}: table1.csv, table1.md, classes.csv, "
        "cells.csv, page/index.html"
    )
    return 1 if len(failed) else 0


def _plan(options: argparse.Namespace) -> tuple[dict[str, Dataset], list[Cell]]:
    """Look up what is asked for, load the datasets, and list the cells."""
    import methods
    from bench import data
    from bench.engine.cells import plan
    from bench.engine.isolation import process_unchanged
    from bench.engine.settings import method_specs

    # What is cheap to check comes first: a wrong name must not cost a decoding of images.
    with process_unchanged():  # files and packages that define methods run their own code
        specs = method_specs(_unique(options.methods or methods.available()), options.profile, options.set)
    for argument, names in (("--datasets", options.datasets), ("--auxiliary", options.auxiliary or [])):
        for name in names:
            data.check_name(name, argument)
    datasets: dict[str, Dataset] = {}

    def load(name: str) -> Dataset:
        if name not in datasets:
            datasets[name] = data.load(name, data_root=options.data_root, download=options.download)
        return datasets[name]

    cells: list[Cell] = []
    for name in _unique(options.datasets):
        dataset = load(name)
        for spec in specs:
            own = _unique(options.auxiliary or [data.default_auxiliary(name)]) if spec.needs_auxiliary else [None]
            for auxiliary in own:
                cells += plan(
                    dataset,
                    [spec],
                    auxiliary=None if auxiliary is None else load(auxiliary),
                    train_per_class=_unique(options.train_per_class),
                    runs=options.runs,
                    classes=dataset.class_indices(options.classes),
                    base_seed=options.seed,
                    test_images=options.test_images,
                )
    return datasets, list({cell.key: cell for cell in cells}.values())


def _unique(names: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
