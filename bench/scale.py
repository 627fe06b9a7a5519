"""``python -m bench.scale``: time and memory of a table of ImageNet's size, and how they grow, on synthetic codes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from bench.engine.arguments import add_version
from bench.engine.command_line import (
    Parser,
    loading,
    non_negative_int,
    positive_int,
    run,
    thread_count,
    writable_directory,
)

PROGRAM = "bench.scale"
#: What is measured so far: an earlier ``scale.csv`` stays until the last size is done.
PARTIAL = "scale.partial.csv"
#: Classes, test codes and stored codes per class of ImageNet, and of the runs that show how time and memory grow: one
#: of the three numbers is multiplied at a time.
IMAGENET, BASE, FACTORS = (1000, 50_000, 120), (50, 5_000, 60), (1, 2, 4, 8)


def _size(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    numbers = tuple(int(part) for part in match.groups()) if match else (0, 0, 0)
    classes, test, m = numbers
    if not (2 <= classes <= test and m >= 1):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; accepted is CLASSESxTESTxM, of at least 2 classes, as many test codes or more, and M of 1"
        )
    return classes, test, m


def _parser() -> Parser:
    def shown(size: Sequence[int]) -> str:
        return "x".join(map(str, size))

    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Run synthetic codes (160 dimensions, 16 branches) through draw, ball count, AUC and store, as "
        "bench.table1 does with images: first at four numbers of classes, of test codes and of stored codes each, "
        "then, beside what these predict, at --size. Needs no data and writes one CSV.",
    )
    add = parser.add_argument
    add("--size", type=_size, default=IMAGENET, metavar="CLASSESxTESTxM",
        help=f"classes, test codes, stored codes per class (default: {shown(IMAGENET)}, ImageNet's)")  # fmt: skip
    add("--base", type=_size, default=BASE, metavar="CLASSESxTESTxM",
        help=f"the smallest of the sizes for growth (default: {shown(BASE)})")  # fmt: skip
    add("--no-growth", action="store_true", help="run --size alone")
    add("--workers", type=positive_int, default=1, metavar="N", help="processes that run cells (default: 1)")
    add("--threads", type=thread_count, metavar="N", help="CPU threads of a cell (default: cores / workers)")
    add("--seed", type=non_negative_int, default=0, help="seed of the codes and draws (default: 0)")
    add("--out", default="runs", metavar="DIR", help="folder for scale.csv (default: runs)")
    add_version(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    classes, test, m = options.base
    if not options.no_growth and test < FACTORS[-1] * classes:
        parser.error(
            f"argument --base: got {classes}x{test}x{m}; accepted are at least {FACTORS[-1]} test codes per class, "
            f"because classes are multiplied by up to {FACTORS[-1]}"
        )
    with loading():
        import pandas as pd

        from bench.analysis import tables
        from bench.engine import provenance
        from bench.engine.cores import available_cores
        from bench.timing.synthetic_codes import Cost, Size, extrapolate, growth, run_alone

    out = writable_directory(options.out, ["scale.csv", PARTIAL])
    threads = options.threads or max(1, available_cores() // options.workers)
    machine = f"{provenance.processor()}, {options.workers} workers × {threads} threads"
    origin = {"machine": machine, "versions": str(provenance.versions()), "commit": provenance.git_commit(),
              "command": provenance.command(PROGRAM, arguments)}  # fmt: skip
    rows: list[dict[str, object]] = []

    def keep(row: dict[str, object]) -> None:
        """Add a row and write everything anew: a larger size may end the process."""
        rows.append(row)
        tables.write_csv(out / PARTIAL, pd.DataFrame(rows).assign(**origin))

    def measure(size: tuple[int, int, int], part: str) -> Cost:
        how = {"seed": options.seed, "workers": options.workers, "threads": threads}
        cost = run_alone(Size(*size), **how, progress=part == "whole")
        keep({"part": part, **vars(Size(*size)), **vars(cost)})
        print(f"{size[0]:>7,} classes {size[1]:>7,} test codes {size[2]:>6,} stored: {cost.seconds:8.2f} s, "
              f"{cost.cpu_seconds:8.2f} s of CPU, {cost.gib:6.3f} GiB, AUC {cost.auc:.3f}", flush=True)  # fmt: skip
        return cost

    axes = {} if options.no_growth else {"classes": 0, "test": 1, "m": 2}
    try:
        if axes:
            measure(options.base, "base")
        for name, axis in axes.items():
            for factor in FACTORS[1:]:
                size = list(options.base)
                size[axis] *= factor
                measure((size[0], size[1], size[2]), name)
        small = pd.DataFrame(rows)
        for name in axes:
            part = small[small["part"].isin(["base", name])]
            powers = [f"{what} {growth(part[name], part[what]):.2f}" for what in ("seconds", "cpu_seconds", "gib")]
            print(f"powers of {name} that these grow as: {', '.join(powers)}")
        whole = Size(*options.size)
        if axes:
            predicted = extrapolate(small, whole)
            keep({"part": "extrapolated", **vars(whole), **predicted})
            numbers = ", ".join(f"{what} {value:.3g}" for what, value in predicted.items())
            print(
                f"extrapolated to {whole.classes:,} classes, {whole.test:,} test codes, {whole.m:,} stored: {numbers}"
            )
        measure(options.size, "whole")
    except KeyboardInterrupt:
        kept = f"what was measured is in {out / PARTIAL}" if rows else "nothing was measured yet"
        raise KeyboardInterrupt(kept) from None
    (out / PARTIAL).replace(out / "scale.csv")
    print(f"written to {out}: scale.csv ({machine})")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
