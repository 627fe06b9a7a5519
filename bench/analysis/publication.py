"""A published folder: every file of it is made of its rows."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bench.analysis import tables
from bench.engine import published
from bench.engine.arguments import command_file
from bench.engine.store import Rows

#: Digests of the other files, as ``sha256sum`` writes and checks them.
DIGESTS = "SHA256SUMS"
#: The tables made of the rows.
TABLES = ("table1.csv", "table1.md", "classes.csv")
_COMMAND = re.compile(r"command(-\d+)?")


def commands(rows: Rows) -> dict[str, str]:
    """The commands that made the rows, by the name of the file that repeats each."""
    lines = dict.fromkeys(rows.cells.sort_values(["finished", "command"])["command"])
    return {f"command{'' if number == 1 else f'-{number}'}": line for number, line in enumerate(lines, 1)}


def command_files(rows: Rows, place: str) -> dict[str, str]:
    """The content of each file that repeats a command.

    Raises
    ------
    ValueError
        If a command cannot be read as words of a shell.
    """
    return {name: command_file(line, shlex.quote(f"{place}/{name}")) for name, line in commands(rows).items()}


def names(rows: Rows, place: str) -> list[str]:
    """The files that :func:`write` may write; raises what :func:`command_files` does, before anything is written."""
    return [*published.FILES.values(), *TABLES, DIGESTS, *command_files(rows, place)]


def present(folder: Path) -> list[str]:
    """The files of a folder that are of a publication, those of an earlier one too."""
    known = {*published.FILES.values(), *TABLES}
    return sorted(path.name for path in folder.iterdir() if path.name in known or _COMMAND.fullmatch(path.name))


def write(folder: Path, rows: Rows, place: str) -> pd.DataFrame:
    """Write rows, the tables made of them, the commands that repeat them, and the digests of all these.

    Parameters
    ----------
    place
        The folder as commands name it.

    Returns
    -------
    pandas.DataFrame
        The table.
    """
    lines, texts = commands(rows), command_files(rows, place)
    published.write_published(folder, rows)
    table = tables.write(folder, rows.all_cells(), rows.auxiliaries, list(lines.values()))
    for stale in folder.glob("command*"):
        if _COMMAND.fullmatch(stale.name) and stale.name not in lines:
            stale.unlink()
    for name, text in texts.items():
        tables.write_text(folder / name, text)
    lines_of_digests = [f"{digest}  {name}\n" for name, digest in digests(folder, present(folder)).items()]
    tables.write_text(folder / DIGESTS, "".join(lines_of_digests))
    return table


def digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each file's content, by its name."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
