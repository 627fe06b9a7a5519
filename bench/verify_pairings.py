"""``python -m bench.verify_pairings``: death times and merge edges of many random clouds against gudhi and ripser."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from bench.engine.arguments import add_version
from bench.engine.command_line import Parser, loading, non_negative_int, positive_int, run, torch_device

PROGRAM = "bench.verify_pairings"
INTERPRETER = "triton-interpreter"
#: Differences that are described; all are counted.
SHOWN = 10


def _peer(name: str) -> Any:
    """The module ``name``."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{PROGRAM} needs {name}: pip install 'corel[peers]' ({error})") from None


def _device(text: str) -> str:
    if text == INTERPRETER:
        return text
    try:
        return torch_device(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, and {INTERPRETER}") from None


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Compare deaths and pairings of random clouds of 1 to 5,000 points with gudhi's and ripser's, "
        "exactly, and merge edges on a device with those on the CPU, bit for bit. Of 20 clouds, two are also reduced "
        "in dimensions 0 and 1, by Algorithm 3 and by the compiled function.",
    )
    add = parser.add_argument
    add("--clouds", type=positive_int, metavar="N", help=f"number of clouds (default: 10000; {INTERPRETER}: 100)")
    add("--seed", type=non_negative_int, default=0, help="seed of the clouds (default: 0)")
    add("--device", type=_device, default="auto",
        help=f"auto, cpu, cuda, or {INTERPRETER}: the GPU's kernels on the CPU, on smaller clouds "
        "(default: auto)")  # fmt: skip
    add_version(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 if there is any difference."""
    options = _parser().parse_args(arguments)
    interpreted = options.device == INTERPRETER
    if interpreted:
        os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when its kernels are defined
    with loading():  # after the options: these take seconds to import
        gudhi, ripser = _peer("gudhi"), _peer("ripser").ripser
        from tqdm.auto import tqdm

        from bench.timing import agreement
        from corel._device import resolve_device

    if interpreted:
        others, sizes, clouds = agreement.interpreted_edges(), agreement.SIZES_INTERPRETED, options.clouds or 100
    else:
        device = resolve_device(options.device)
        others, sizes, clouds = agreement.edges_on(device), agreement.SIZES, options.clouds or 10_000
    where = INTERPRETER if interpreted else str(device)
    wrong = tied = large = done = 0
    try:
        for index in tqdm(range(clouds), unit="cloud", file=sys.stderr):
            cloud = agreement.draw_cloud(options.seed, index, sizes)
            tied += cloud.kind in agreement.TIED
            large += len(cloud.points) > sizes[0][1]
            reduce = len(cloud.points) <= sizes[0][1] and index % agreement.REDUCTION_EVERY in (0, 1)
            found = agreement.differences(cloud, gudhi, ripser, others, reduce)
            done += 1
            if found:
                wrong += 1
                if wrong <= SHOWN:
                    tqdm.write(f"cloud {index} ({cloud}): {'; '.join(found)}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{wrong} of {done} clouds differ") from None
    print(
        f"{wrong} of {done} clouds differ on {where} from gudhi {gudhi.__version__} and ripser "
        f"{metadata.version('ripser')} ({tied} with ties or duplicates, {large} of more than 1,024 points; "
        f"seed {options.seed})"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
