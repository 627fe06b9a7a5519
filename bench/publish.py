"""``python -m bench.publish``: from runs to a table that others can take as finished, and check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.engine.arguments import FileParser, add_version
from bench.engine.command_line import loading, run, writable_directory

PROGRAM = "bench.publish"


def _parser() -> FileParser:
    parser = FileParser(
        prog=f"python -m {PROGRAM}",
        description="Write the rows of runs, with every column, and the tables made of them to a folder of results/. "
        "Rows that are there already stay; python -m bench.table1 --from takes published rows as finished.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that bench.table1 wrote to, or published ones")
    parser.add_argument("--to", required=True, metavar="DIR", help="where to publish: results/NAME")
    add_version(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)

    with loading():
        from bench.analysis import publication, tables
        from bench.engine import published

    to = Path(options.to)
    published.check_kind(options.to, run=False, argument="--to")
    parts = [(name, published.read_rows(name, "RUN")) for name in options.runs]
    for name, rows in parts:
        if len(rows.cells) == 0:
            raise ValueError(f"RUN: {name!r} holds no finished cells")
    if (to / published.FILES["cells"]).is_file():
        parts.insert(0, (options.to, published.read_rows(to, "--to")))
    rows = published.merge(parts)
    writable_directory(options.to, publication.names(rows, to.as_posix()), argument="--to")

    table = publication.write(to, rows, to.as_posix())
    print(tables.to_text(tables.for_people(table)))
    print(
        f"\n{len(rows.cells)} cells and {len(rows.auxiliaries)} trainings on auxiliary images; written to {to}: "
        f"{', '.join(sorted(path.name for path in to.iterdir() if path.is_file()))}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
