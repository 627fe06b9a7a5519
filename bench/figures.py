"""``python -m bench.figures``: the paper's figures, each as PNG, PDF, CSV and a caption that says what was run."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import data
from bench.analysis.figures import FIGURES
from bench.engine import provenance
from bench.engine.arguments import FileParser, add_version, recorded_command
from bench.engine.command_line import (
    loading,
    positive_int,
    run,
    thread_count,
    torch_device,
    whole_number,
    writable_directory,
)

PROGRAM = "bench.figures"
#: The options that shape what is drawn. The others say where and how one machine runs.
_SHAPING = ("datasets", "auxiliary", "set", "runs", "profile", "threads", "seed")


def _figure(text: str) -> str:
    if text != "all" and text not in FIGURES:
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are {', '.join(FIGURES)} and all")
    return text


def _parser() -> FileParser:
    width = max(map(len, FIGURES))
    parser = FileParser(
        prog=f"python -m {PROGRAM}",
        description="Draw figures: each as PNG and PDF, with its numbers as CSV and a caption, in OUT/figures. "
        "Encoders and AUCs are those of bench.table1 with the same --out; what is missing is computed and kept.",
        epilog="\n".join(["figures:", *(f"  {name:<{width}}  {entry.shows}" for name, entry in FIGURES.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("figures", nargs="+", type=_figure, metavar="FIGURE", help=f"{', '.join(FIGURES)}, or all")
    add("--datasets", nargs="+", default=["digits"], metavar="NAME",
        help="AUCs are of the first; Fig. 6 and 8 compare the encoder's dataset with the first and the second that "
        "differ from it, or with images that come with libraries (default: digits)")  # fmt: skip
    add("--auxiliary", metavar="NAME",
        help="dataset that the encoder learns from (default: the paper's choice for the first)")  # fmt: skip
    add("--set", action="append", default=[], metavar="corel.SETTING=VALUE", help="change a setting of the encoder")
    add("--runs", type=positive_int, default=5, help="draws of m images per class (default: 5)")
    add("--profile", default="quick", choices=["quick", "paper"], help="quick or paper (default: quick)")
    add("--from", nargs="+", dest="published", default=[], metavar="DIR",
        help="take finished cells, and the runtime study, from published tables (results/NAME) or other runs",
    )  # fmt: skip
    add("--data-root", default="data", metavar="DIR", help="folder of the datasets (default: data)")
    add("--download", action="store_true", help="fetch CIFAR files that are not there")
    add("--device", type=torch_device, default="auto", help="auto, cpu or cuda (default: auto)")
    add("--threads", type=thread_count, metavar="N",
        help="CPU threads (default: 1 in the quick profile, every core in the paper's)")  # fmt: skip
    add("--seed", type=whole_number, default=0, help="base seed of all that is random (default: 0)")
    add("--out", default="runs", metavar="DIR", help="folder of the run (default: runs)")
    add_version(parser)
    return parser


def _command(name: str, options: argparse.Namespace) -> str:
    """The command line that draws one figure; what belongs to this machine is left out."""
    return recorded_command([PROGRAM, name], options, _parser().parse_args([name]), _SHAPING)


def _runtime_alone(name: str) -> bool:
    """Whether a folder holds a runtime study and no rows, as ``bench.runtime`` leaves it."""
    from bench.analysis.figures import runtime
    from bench.engine import published
    from bench.engine.store import STORE_FILE

    folder = Path(name)
    with_rows = any((folder / file).exists() for file in (STORE_FILE, published.FILES["cells"]))
    return name != "" and (folder / runtime.FILE).is_file() and not with_rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    names = list(dict.fromkeys(FIGURES if "all" in options.figures else options.figures))
    for name in options.datasets:
        data.check_name(name, "--datasets")
    if options.auxiliary is not None:
        data.check_name(options.auxiliary, "--auxiliary")

    with loading():
        import matplotlib
        import torch

        from bench.analysis import style
        from bench.analysis.figures import picture
        from bench.analysis.figures.study import Study
        from bench.engine import published
        from bench.engine.cores import default_threads
        from bench.engine.settings import method_specs
        from corel._device import resolve_device

    published.check_kind(options.out, run=True, argument="--out")
    out = writable_directory(options.out)
    writable_directory(out / "cache")
    folder = writable_directory(out / "figures", [f"{name}.{kind}" for name in names for kind in ("png", "pdf", "md")])
    if len(method_specs(["corel"], options.profile, options.set)) > 1:
        raise ValueError("--set: got more than one value for a setting; accepted is one: a figure has one encoder")
    threads = options.threads or default_threads(options.profile)
    rows = published.merge(
        [(name, published.read_rows(name, "--from")) for name in options.published if not _runtime_alone(name)]
    )
    study = Study(
        out, list(dict.fromkeys(options.datasets)), options.auxiliary, options.data_root, options.download,
        options.profile, options.set, str(resolve_device(options.device)), threads, options.runs, options.seed, rows,
        [Path(name) for name in options.published],
    )  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    before, drawn, failed = torch.get_num_threads(), 0, 0
    torch.set_num_threads(threads)
    try:
        for name in names:
            started, entry = time.monotonic(), FIGURES[name]
            try:
                with loading():
                    module = importlib.import_module(f"bench.analysis.figures.{entry.module}")
                with matplotlib.rc_context(style.STYLE):
                    by = f"drawn by `{_command(name, options)}`; commit {provenance.git_commit()}; {versions}"
                    files = picture.write(name, module.draw(study, **entry.options), folder, by)
            except Exception as error:  # it costs no other figure
                if os.environ.get("COREL_DEBUG"):
                    raise
                failed += 1
                print(f"{name}: failed: {' '.join(f'{type(error).__name__}: {error}'.split())}", file=sys.stderr)
                continue
            drawn += 1
            print(f"{name}: {', '.join(files)}; {time.monotonic() - started:.0f} s", flush=True)
    except KeyboardInterrupt as interrupt:
        told = f"{drawn} of {len(names)} figures are drawn, and what they need is kept"
        raise KeyboardInterrupt("; ".join(filter(None, [str(interrupt), told]))) from None
    finally:
        torch.set_num_threads(before)
    print(f"{drawn} figures drawn, {failed} failed; in {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
