"""``python -m bench.runtime``: the runtime study of the paper's Appendix C (Fig. 7), and beyond.

Every contender gets the same points, one input after the other in one process, in turns; what is timed is the way
from the points to the death times, construction of the complex included (:mod:`bench.timing`). Beside it stand the
connectivity loss alone, and a training with it beside a plain PyTorch loop.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from bench.engine.arguments import add_version
from bench.engine.command_line import (
    Parser,
    integer,
    loading,
    number,
    positive_int,
    run,
    torch_device,
    writable_directory,
)
from bench.timing.inputs import KINDS, from_file

PROGRAM = "bench.runtime"
LARGEST = 100_000
FILES = ["runtime.csv", "runtime.png", "runtime.pdf"]
#: What is measured so far: the files of an earlier study stay until the last size is done.
PARTIAL = "runtime.partial.csv"
#: Most numbers of one timed input: 8 GiB.
MOST_NUMBERS = 2**30
NORMS = {"1": 1.0, "2": 2.0, "inf": math.inf}


def _norm(text: str) -> float:
    if text not in NORMS:
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are {', '.join(NORMS)}")
    return NORMS[text]


def _points(text: str) -> str:
    if text not in KINDS and not text.endswith(".npy"):
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are {', '.join(KINDS)} and FILE.npy")
    return text


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Time 0-dimensional Rips persistence: corel in all its forms beside every peer that is installed.",
    )
    add = parser.add_argument
    add("--sizes", nargs="+", type=integer(2, LARGEST), default=[32, 64, 128], metavar="N",
        help="points of a cloud (default: 32 64 128)")  # fmt: skip
    add("--points", type=_points, default="gaussian", metavar="KIND",
        help="gaussian, sheet (2-dimensional), clusters, or FILE.npy: rows of its (N, d) array "
        "(default: gaussian)")  # fmt: skip
    add("--dim", type=positive_int, help="dimension of the points (default: 10, or that of FILE.npy)")
    add("--p", type=_norm, default=1.0, metavar="P",
        help="norm of lengths: 1, 2 or inf; some peers know 2 alone (default: 1, the paper's)")  # fmt: skip
    add("--repeats", type=positive_int, default=50, help="timed inputs per size (default: 50)")
    add("--batch", type=positive_int, default=16, help="clouds of a batch (default: 16)")
    add("--limit", type=number("numbers above 0", lambda seconds: seconds > 0), default=10.0, metavar="SECONDS",
        help="leave out a contender where one call is expected to take longer (default: 10)")  # fmt: skip
    add("--device", type=torch_device, default="auto", help="where corel runs: auto, cpu or cuda (default: auto)")
    add("--out", default="runs", metavar="DIR", help=f"folder for {', '.join(FILES)} (default: runs)")
    add_version(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.dim is not None and options.points not in KINDS:
        parser.error("argument --dim: not allowed with --points FILE.npy")

    # after the options: these take seconds to import
    with loading():
        import numpy as np
        import pandas as pd
        from tqdm.auto import tqdm

        from bench.analysis import plots, tables
        from bench.engine import provenance
        from bench.timing import contenders, peers, report
        from bench.timing.clock import Clock, extra_memory
        from corel._device import resolve_device

    device, p, sizes = resolve_device(options.device), options.p, sorted(set(options.sizes))
    if options.points in KINDS:
        draw, dim = KINDS[options.points], options.dim or 10
    else:
        draw, dim = from_file(options.points, sizes[-1])
    for n in sizes:
        count = options.batch if n <= contenders.EVERYTHING else 1
        if n * dim * count > MOST_NUMBERS:
            raise ValueError(
                f"--sizes, --dim, --batch: got {n} points, {dim} coordinates, {count} clouds; accepted are up to "
                f"{MOST_NUMBERS:,} numbers in all"
            )
    out = writable_directory(options.out, [*FILES, PARTIAL])
    others, versions, notes = peers.installed(p)
    clock = Clock(device, options.repeats, options.limit, notes)
    frames: list[pd.DataFrame] = []

    def clouds(generator: np.random.Generator, n: int) -> np.ndarray:
        count = options.batch if n <= contenders.EVERYTHING else 1
        return np.stack([draw(generator, n, dim) for _ in range(count)])

    def keep(size: int, found: list[contenders.Contender], memory: float = math.nan, **same: object) -> pd.DataFrame:
        """Add rows, write all of them, since a larger size may end the process, and return them."""
        frame = report.rows(size, found, **same)
        of_memory = frame["contender"] == contenders.own_name("merge_edges, float32", device)
        frames.append(frame.assign(extra_memory_mib=np.where(of_memory, memory, math.nan)))
        command = provenance.command(PROGRAM, arguments)
        table = report.with_provenance(pd.concat(frames, ignore_index=True), device, versions, command)
        tables.write_csv(out / PARTIAL, table)
        return table

    same = {"points": options.points, "dim": dim, "metric": contenders.norm_name(p), "batch": options.batch}
    try:
        found = clock.time(contenders.of_training(device), lambda g, n: g.random(contenders.IMAGES_SHAPE), 100)
        keep(100, found, points="uniform images", dim=3072, metric="L1", batch=1)
        found = clock.time(contenders.of_loss(p, device), lambda g, n: g.normal(size=contenders.LOSS_SHAPE), 100)
        keep(100, found, **{**same, "points": "gaussian", "dim": 10})
        for n in tqdm(sizes, unit="size", file=sys.stderr):
            found = clock.time(contenders.of_clouds(n, p, device, others), clouds, n)
            if not found:
                raise ValueError(
                    f"--limit: got {options.limit:g}, but every call at {n:,} points is expected to take longer; what "
                    f"was measured is in {out / PARTIAL}"
                )
            table = keep(n, found, extra_memory(n, dim, p, device) if n > contenders.EVERYTHING else math.nan, **same)
    except KeyboardInterrupt:
        kept = f"what was measured is in {out / PARTIAL}" if frames else "nothing was measured yet"
        raise KeyboardInterrupt(kept) from None
    (out / PARTIAL).replace(out / FILES[0])
    figure = plots.runtime(table)
    for name in FILES[1:]:
        plots.save(figure, out / name)
    print("\n".join([*report.text(pd.concat(frames)), "", *clock.notes]))
    print(f"\n{report.machine(device)}; medians [quartiles]; written to {out}: {', '.join(FILES)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
