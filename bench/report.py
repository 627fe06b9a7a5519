"""``python -m bench.report``: rows of runs or published tables as a page to look at, with its figures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.engine.arguments import FileParser, add_version
from bench.engine.command_line import loading, run, torch_device, writable_directory

if TYPE_CHECKING:
    import pandas as pd

PROGRAM = "bench.report"


def _parser() -> FileParser:
    parser = FileParser(
        prog=f"python -m {PROGRAM}",
        description="Draw the page of some rows: one HTML file that needs nothing else, the same as Markdown, and its "
        "pictures as PNG and PDF. Nothing is computed but statistics; what is missing is said, with its command.",
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="folders of bench.table1 or of published tables (default: runs)")
    add("--out", metavar="DIR", help="folder of the page (default: page, in the first RUN)")
    add("--data-root", default="data", metavar="DIR",
        help="folder of the datasets, for images of a run that has kept none (default: data)")  # fmt: skip
    add("--device", type=torch_device, default="auto", help="auto, cpu or cuda, for these images (default: auto)")
    add_version(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)

    with loading():
        from bench.analysis import page
        from bench.engine import published

    names = list(dict.fromkeys(options.runs or ["runs"]))
    rows = published.merge([(name, published.read_rows(name, "RUN")) for name in names])
    out = writable_directory(
        Path(names[0]) / "page" if options.out is None else options.out, ["index.html", "report.md", "constraints.txt"]
    )
    writable_directory(out / "figures")
    images, why = _gallery(names, rows.cells, out, options.data_root, options.device)
    commands = list(dict.fromkeys(rows.cells.sort_values("finished")["command"]))
    path = page.write(out, rows.all_cells(), rows.auxiliaries, commands, names, images)
    if why:
        print(f"no images of the method at work: {why}")
    print(f"{len(rows.cells)} cells, {len(rows.failures)} failed; open {path}")
    return 0


def _gallery(
    runs: Sequence[str], cells: pd.DataFrame, out: Path, data_root: str, device: str
) -> tuple[Path | None, str]:
    """The images of a run: those that it kept, else made of its encoder and data where both are there; or why not."""
    from bench import data
    from bench.analysis import gallery

    for name in runs:
        if (Path(name) / gallery.FILE).is_file():
            return Path(name) / gallery.FILE, ""
    load = functools.cache(functools.partial(data.load, data_root=data_root))
    for name in runs:
        if not (Path(name) / "cache").is_dir():
            continue
        try:
            path = gallery.write(out / gallery.FILE, cells, Path(name) / "cache", load, device)
        except (ValueError, OSError) as error:
            return None, str(error)
        if path is not None:
            return path, ""
    return None, ""


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
