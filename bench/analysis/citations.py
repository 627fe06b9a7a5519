"""Whether the measured numbers of a page are those of published rows.

A page in Markdown says where its numbers come from in one of two ways:

- ``<!-- rows: results/NAME -->`` before a table: each line of it is a line of ``results/NAME/table1.md``, in the
  columns whose heads are the same in both. It may leave out lines and columns, and several folders may be named.
- ``[0.760 ± 0.001](results/NAME/table1.csv "auc_mean: method=corel; train_per_class=120")``: a link to a CSV file,
  whose title names a column and, by values of other columns, one line. A number after ± is of the column that has
  ``_std`` for ``_mean``.

Paths are relative to the page. Numbers are compared as they are printed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

_MARK = re.compile(r"\s*<!--\s*rows:\s*(.*?)\s*-->\s*")
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\s+\"([^\"]*)\"\)")
_PLAIN_LINK = re.compile(r"\[([^\[\]]*)\]\([^()]*\)")
_CODE = re.compile(r"(`+).+?\1|<!--.*?-->")
_PRINTED = re.compile(r"\s*\**\s*([+−-]?[\d,]*\.?\d+)(?:\s*±\s*([\d,]*\.?\d+))?(?![\d.])")
#: What looks measured: in a table every decimal fraction, elsewhere an AUC of three digits or more, and what has a ±.
_IN_TABLES = re.compile(r"(?<![\w.])\d+\.\d+(?![\w]|\.\d)")
_IN_TEXT = re.compile(r"(?<![\w.])[01]\.\d{3,}(?![\w]|\.\d)|\d+(?:\.\d+)?\s*±\s*\d+")


def check_page(page: Path, *, every_number: bool) -> list[str]:
    """Check the numbers of a page.

    Parameters
    ----------
    page
        A Markdown file in UTF-8.
    every_number
        Whether a number that looks measured must say where it comes from; else only those are checked that do.

    Returns
    -------
    list of str
        A line for each fault, with the page and the number of the line.
    """
    try:
        lines = page.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [f"{page}: cannot be read ({error})"]
    faults: list[str] = []

    def say(number: int, text: str) -> None:
        faults.append(f"{page}:{number}: {text}")

    marked: tuple[int, str] | None = None
    fenced, number = False, 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            continue
        if fenced or not line.strip():
            continue
        mark = _MARK.fullmatch(line)
        if marked is not None and not _is_row(line):
            say(marked[0], "no table follows")
            marked = None
        if mark:
            marked = (number, mark[1])
        elif _is_row(line):
            end = number
            while end < len(lines) and _is_row(lines[end]):
                end += 1
            table = [(at + 1, _cells(lines[at])) for at in range(number - 1, end)]
            known = set() if marked is None else set(_check_table(page.parent, table, marked[1], say))
            for at, cells in table:
                for index, text in enumerate(cells):
                    if index not in known:
                        _check_text(page.parent, text, at, _IN_TABLES if every_number else None, say)
            marked, number = None, end
        else:
            _check_text(page.parent, line, number, _IN_TEXT if every_number else None, say)
    if marked is not None:
        say(marked[0], "no table follows")
    return faults


def _is_row(line: str) -> bool:
    return line.lstrip().startswith("|")


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", inner)]


def _tables(path: Path) -> Iterator[dict[str, str]]:
    """The lines of the tables of a page."""
    head: list[str] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if not _is_row(line):
            head = None
        elif head is None:
            head = _cells(line)
        else:
            yield dict(zip(head, _cells(line), strict=False))


def _check_table(
    root: Path, table: Sequence[tuple[int, list[str]]], folders: str, say: Callable[[int, str], None]
) -> Iterator[int]:
    """Compare a table with those of published folders; yields the columns that were compared."""
    number, head = table[0]
    known: list[dict[str, str]] = []
    for folder in folders.split():
        try:
            known += _tables(root / folder / "table1.md")
        except OSError:
            say(number, f"rows: there is no {folder}/table1.md")
    if not folders:
        say(number, "rows: names no folder")
    columns = {index: name for index, name in enumerate(head) if any(name in row for row in known)}
    yield from columns
    for at, cells in table[2:]:
        wanted = {name: cells[index].strip("*") for index, name in columns.items() if index < len(cells)}
        if known and not any(wanted.items() <= row.items() for row in known):
            say(at, f"no row of {folders} has {', '.join(f'{name} {text}' for name, text in wanted.items())}")


def _check_text(
    root: Path, text: str, number: int, measured: re.Pattern[str] | None, say: Callable[[int, str], None]
) -> None:
    """Check the links in a text, and what else in it looks ``measured``."""

    def linked(link: re.Match[str]) -> str:
        shown, target, title = link.groups()
        printed = _PRINTED.match(shown)
        if not target.endswith(".csv"):
            return shown
        if printed is None:
            say(number, f"{shown}: a link with a title to a CSV file must begin with the number that it cites")
            return ""
        fault = _fault_of(root / target, title, printed[1], printed[2])
        if fault:
            say(number, f"{shown}: {fault}")
        return ""

    rest = _PLAIN_LINK.sub(r"\1", _LINK.sub(linked, _CODE.sub("", text)))
    if measured is not None:
        for found in measured.finditer(rest):
            say(number, f"{found[0]} does not say which row it comes from")


def _fault_of(path: Path, title: str, printed: str, deviation: str | None) -> str:
    """What is wrong with a number whose link has this title; empty if nothing is."""
    column, _, conditions = title.partition(":")
    wanted = dict(part.strip().split("=", 1) for part in conditions.split(";") if "=" in part)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return f"{path} cannot be read ({error})"
    missing = [name for name in (column, *wanted) if not rows or name not in rows[0]]
    if missing:
        return f"{path} has no column {', '.join(missing)}"
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    if len(found) != 1:
        return f"{len(found)} lines of {path} have {conditions.strip() or 'no condition'}; one is needed"
    row = found[0]
    if not _prints_as(row[column], printed):
        return f"{path} has {row[column]} as {column}"
    if deviation is not None:
        column = column.replace("_mean", "_std")
        if not _prints_as(row.get(column), deviation):
            return f"{path} has {row.get(column)} as {column}"
    return ""


def _prints_as(value: str | None, printed: str) -> bool:
    """Whether a number, rounded to as many decimals, is what is printed."""
    try:
        exact, shown = Decimal(value or ""), Decimal(printed.replace(",", "").replace("−", "-"))
        steps = [Decimal(1).scaleb(int(number.as_tuple().exponent)) for number in (exact, shown)]
    except (InvalidOperation, ValueError):
        return False
    # a file with more decimals than are printed is rounded itself: half a unit of its last digit more
    return abs(exact - shown) <= (sum(steps) / 2 if steps[0] < steps[1] else 0)
