"""``python -m bench.verify``: whether published numbers hold together, and come out the same when computed again."""

from __future__ import annotations

import argparse
import collections
import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.engine.arguments import add_version
from bench.engine.command_line import (
    Parser,
    loading,
    non_negative_int,
    number,
    positive_int,
    run,
    torch_device,
    writable_directory,
)

if TYPE_CHECKING:
    from bench.analysis.verification import Publication

PROGRAM = "bench.verify"
#: Status where nothing of what was to be computed again could be.
NOTHING_COMPUTED = 3


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check published tables: each file against the rows it is made of, each row against its key, each "
        "AUC against\nwhat a count of pairs can be; then compute a sample of the rows again, with their own settings, "
        "seeds, threads and data.\nWithout a folder: check all of results/ and the numbers pages cite, and compute "
        "nothing.",
        epilog="Status: 0 all that was checked is right; 1 something is not; 2 a wrong argument; "
        f"{NOTHING_COMPUTED} nothing is wrong, but none of the rows\ncould be computed again (no data, another version "
        "of the method, ...). How to cite a row on a page: docs/provenance.md.",
    )
    add = parser.add_argument
    add("folders", nargs="*", metavar="results/NAME", help="folders that bench.publish wrote")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--sample", type=non_negative_int, default=20, metavar="N",
        help="compute N rows again, drawn evenly over the methods, then over the lines of the table; 0: none "
        "(default: 20)")  # fmt: skip
    which.add_argument("--all", action="store_true", help="compute every row again")
    add("--seed", type=non_negative_int, default=0, help="seed of the sample (default: 0)")
    add("--tolerance", type=number("numbers from 0 to 1", lambda value: 0 <= value <= 1), default=0.02, metavar="X",
        help="largest accepted difference of an AUC computed with other versions, processor, threads or commit (a "
        "training enlarges rounding); with the same ones on a CPU none is accepted (default: 0.02)")  # fmt: skip
    add("--data-root", default="data", metavar="DIR", help="folder of the datasets (default: data)")
    add(
        "--device",
        type=torch_device,
        default="auto",
        help="auto (what a row was computed on, if it is here), cpu or cuda (default: auto)",
    )
    add("--workers", type=positive_int, metavar="N",
        help="processes that compute (default: cores / threads of the rows, 1 on a GPU)")  # fmt: skip
    add("--cache", metavar="DIR",
        help="take trainings on auxiliary images from the cache of a run (runs/cache); what was taken is said "
        "(default: train again)")  # fmt: skip
    add("--out", metavar="DIR", help="keep what is computed here, and go on from it (default: a temporary folder)")
    add_version(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    if options.all and not options.folders:
        raise ValueError("--all: needs results/NAME; without a folder no row is computed again")
    for name in options.folders:
        if not Path(name).is_dir():
            raise ValueError(f"results/NAME: got {name!r}; accepted are folders that bench.publish wrote")
    if options.cache is not None and not Path(options.cache, "auxiliary").is_dir():
        raise ValueError(f"--cache: got {options.cache!r}; accepted is the cache of a run, with a folder auxiliary")
    if options.out is not None:
        writable_directory(options.out, ["verify.sqlite"])
    with loading():
        from bench.analysis import verification
        from bench.engine.published import FILES
        from bench.engine.recomputation import DIFFERENT, UNCHECKED
        from bench.engine.store import STORE_FILE

    for name in options.folders:
        if Path(name, STORE_FILE).is_file() and not Path(name, FILES["cells"]).is_file():
            raise ValueError(f"results/NAME: got {name!r}, the folder of a run; python -m bench.publish publishes it")
    if options.folders:
        pages: list[Path] = []
        found = [verification.check(Path(name)) for name in options.folders]
        faults = [fault for publication in found for fault in publication.faults]
    else:
        found, pages, faults = verification.check_all(Path())
    print("".join(f"wrong: {fault}\n" for fault in faults), end="")
    rows = sum(len(publication.rows.cells) for publication in found if publication.rows is not None)
    checked = f"{len(found)} folders with {rows} rows" + (f", {len(pages)} pages" if pages else "")
    print(f"{checked} checked from their files: {len(faults)} faults", flush=True)
    if not options.folders or not (options.all or options.sample):
        return 1 if faults else 0
    verdicts = _compute(options, found)
    if faults or verdicts[DIFFERENT]:
        return 1
    return NOTHING_COMPUTED if set(verdicts) <= {UNCHECKED} else 0


def _compute(options: argparse.Namespace, found: Sequence[Publication]) -> collections.Counter[str]:
    """Compute rows again and print what comes of each; returns how many came to each verdict."""
    with loading():
        from tqdm.auto import tqdm

        from bench.analysis import statistics
        from bench.engine import published
        from bench.engine.recomputation import Comparison, Recomputation, sample
        from corel._device import resolve_device

    resolve_device(options.device)
    verdicts: collections.Counter[str] = collections.Counter()
    differences = [0.0]

    def report(comparison: Comparison) -> None:
        verdicts[comparison.verdict] += 1
        differences.append(comparison.difference)
        tqdm.write(str(comparison))

    rows = published.merge([(str(one.folder), one.rows) for one in found if one.rows is not None])
    unsound = {key for one in found for key in one.unsound}
    cells = statistics.with_seed(rows.cells[~rows.cells["key"].isin(unsound)])
    chosen = sample(cells, len(cells) if options.all else options.sample, options.seed, statistics.GROUP)
    with (
        contextlib.nullcontext(options.out)
        if options.out
        else tempfile.TemporaryDirectory(prefix="corel-verify-") as folder
    ):
        again = Recomputation(rows, Path(folder), options.cache and Path(options.cache), options.tolerance)
        try:
            again.run(chosen, options.data_root, options.device, options.workers, report)
        except KeyboardInterrupt:
            kept = f"kept in {options.out}" if options.out else "nothing is kept without --out"
            raise KeyboardInterrupt(f"{verdicts.total()} of {len(chosen)} rows are compared; {kept}") from None
    for name in again.trained.values():
        print(f"trained again on auxiliary images: {name}")
    for name in again.taken.values():
        print(f"taken from {options.cache or 'a cache, by an earlier command'}, not trained again: {name}")
    if len(rows.failures):
        print(f"{len(rows.failures)} cells failed when they were published: they have no number to compare")
    print(
        f"{len(chosen)} of {len(rows.cells)} rows were to be computed again: "
        f"{', '.join(f'{count} {verdict}' for verdict, count in verdicts.items()) or 'none'}; "
        f"largest difference {max(differences):.2g} (accepted by other versions or machines: {options.tolerance:g})"
    )
    return verdicts


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
