"""Finished cells on disk: one SQLite row each, written in one transaction."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bench.engine.cells import Cell, canonical_json, printable

#: The store in an output folder.
STORE_FILE = "cells.sqlite"

# Columns that are known before a cell is run (Cell.row).
_CELL = """
    key TEXT PRIMARY KEY NOT NULL,
    protocol INTEGER NOT NULL,
    dataset TEXT NOT NULL,
    dataset_title TEXT NOT NULL,
    dataset_fingerprint TEXT NOT NULL,
    classes INTEGER NOT NULL,
    test_size INTEGER NOT NULL,
    test_images INTEGER,
    method TEXT NOT NULL,
    method_identity TEXT NOT NULL,
    method_version INTEGER NOT NULL,
    source_digest TEXT NOT NULL,
    profile TEXT NOT NULL,
    settings TEXT NOT NULL,
    changes TEXT NOT NULL,
    auxiliary TEXT,
    auxiliary_title TEXT,
    auxiliary_fingerprint TEXT,
    auxiliary_settings TEXT,
    auxiliary_key TEXT,
    train_per_class TEXT NOT NULL,
    run INTEGER NOT NULL,
    class INTEGER NOT NULL,
    class_name TEXT NOT NULL,
    seeds TEXT NOT NULL,
"""
# Columns that say where, when and with what a row was computed.
_ORIGIN = """
    device TEXT NOT NULL,
    threads INTEGER NOT NULL,
    versions TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    command TEXT NOT NULL,
    finished TEXT NOT NULL
"""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS cells ({_CELL}
    auc REAL NOT NULL,
    aucs TEXT NOT NULL,
    fit_seconds REAL NOT NULL,
    score_seconds REAL NOT NULL,
    parameters INTEGER,
    {_ORIGIN}
);
CREATE TABLE IF NOT EXISTS failures ({_CELL}
    cell TEXT NOT NULL,
    error TEXT NOT NULL,
    command TEXT NOT NULL,
    failed TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS auxiliaries (
    key TEXT PRIMARY KEY NOT NULL,
    method TEXT NOT NULL,
    source_digest TEXT NOT NULL,
    settings TEXT NOT NULL,
    auxiliary TEXT NOT NULL,
    auxiliary_title TEXT NOT NULL,
    auxiliary_fingerprint TEXT NOT NULL,
    seed INTEGER NOT NULL,
    seconds REAL NOT NULL,
    {_ORIGIN}
);
"""
# Columns that hold an object in JSON.
_OBJECTS = frozenset({"settings", "changes", "auxiliary_settings", "seeds", "versions"})
# The last bytes of a rollback journal that names a super-journal (see SQLite's file format, section 3).
_NAMES_A_FILE = bytes.fromhex("d9d505f920a163d7")
# The columns that determine a cell's AUC. Names are left out: one dataset or file may have several spellings.
_IDENTITY = (
    "protocol",
    "dataset_fingerprint",
    "test_images",
    "method_identity",
    "method_version",
    "source_digest",
    "settings",
    "auxiliary_fingerprint",
    "auxiliary_settings",
    "train_per_class",
    "run",
    "class",
    "seeds",
)
_UNFINISHED = "key NOT IN (SELECT key FROM cells)"

#: The tables of a store.
ROW_TABLES = ("cells", "auxiliaries", "failures")


@dataclasses.dataclass(frozen=True)
class Rows:
    """All rows of a run or of a published table, with the columns of the store.

    ``cells`` are the finished ones, ``auxiliaries`` the trainings on auxiliary images, ``failures`` the cells whose
    last attempt ended in an error.
    """

    cells: pd.DataFrame
    auxiliaries: pd.DataFrame
    failures: pd.DataFrame

    def all_cells(self) -> pd.DataFrame:
        """Finished and failed cells in one table: ``aucs`` tells the finished ones, ``error`` the others."""
        return (
            pd.concat([self.cells, self.failures], ignore_index=True)
            if len(self.failures)
            else self.cells.assign(cell=None, error=None)
        )


@functools.cache
def columns_of(table: str) -> dict[str, tuple[str, bool]]:
    """Type ("TEXT", "INTEGER" or "REAL") of each column of a table, in order, and whether it may be empty."""
    with contextlib.closing(sqlite3.connect(":memory:")) as example:
        example.executescript(_SCHEMA)
        return {row[1]: (row[2], not row[3]) for row in example.execute(f"PRAGMA table_info({table})")}


def typed(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """``frame`` with the columns of a table, each of its type, whatever it was read from; None where it is empty.

    Raises
    ------
    ValueError
        If a value is not of its column's type.
    """
    result = {}
    for name, (kind, nullable) in columns_of(table).items():
        values = [None if nullable and (pd.isna(value) or value == "") else value for value in frame[name]]
        if kind == "TEXT":
            result[name] = pd.Series([_text(name, value) for value in values], dtype=object)
            continue
        convert, dtype = (int, "Int64" if nullable else "int64") if kind == "INTEGER" else (float, "float64")
        try:
            result[name] = pd.Series([v if v is None else convert(v) for v in values], dtype=dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"column {name!r}: {error}") from None
    return pd.DataFrame(result)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of ``frame`` as dictionaries; None where a value is empty or NaN."""
    rows = frame.to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def _text(column: str, value: object) -> str | None:
    """Check a value of a TEXT column, which others may have written: one line; in :data:`_OBJECTS`, a JSON object."""
    if value is None:
        return None
    text = printable(value) if isinstance(value, str) else None
    # what is returned must be JSON: escapes make none of an object that is written in several lines
    if text is None or (column in _OBJECTS and not _is_object(column, text)):
        accepted = "objects in JSON" if column in _OBJECTS else "strings"
        raise ValueError(f"column {column!r}: got {str(value)[:60]!r}; accepted are {accepted}")
    return text


@functools.lru_cache(maxsize=4096)  # most rows of a table share their values
def _is_object(column: str, text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (column != "seeds" or type(value.get("base")) is int)


def checked_aucs(cells: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return ``cells`` if the AUCs of each can be read; a ValueError that names ``path`` and the cell otherwise."""
    for key, aucs in zip(cells["key"], cells["aucs"], strict=True):
        if not _is_aucs(aucs):
            raise ValueError(
                f"store: {str(path)!r}: the aucs of cell {key!r} are {str(aucs)[:60]!r}; accepted are numbers "
                "from 0 to 1 by name in JSON; delete that row and the cell is run again"
            )
    return cells


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_aucs(text: object) -> bool:
    """Whether ``text`` is what :meth:`Store.add` writes for the AUCs of a cell."""
    try:
        aucs = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    numbers = aucs.values() if isinstance(aucs, dict) else ()
    return bool(numbers) and all(type(auc) in (int, float) and 0 <= auc <= 1 for auc in numbers)


class Store:
    """The finished cells of an output folder.

    A row is there whole or not at all, also after ``kill -9``; a finished cell is never replaced.

    Parameters
    ----------
    path
        The SQLite file; made where there is none.
    command
        The command line that new rows are noted to come from.

    Raises
    ------
    ValueError
        If the file is not a store of this version or cannot be written to; of every method, if it can no longer be
        read or written.
    """

    def __init__(self, path: Path, command: str = "") -> None:
        self.path, self.command = path, printable(command)
        with self._usable():
            _check_journal(path)
            self._connection = sqlite3.connect(path, timeout=60)
            self._check()
            self._connection.execute("BEGIN IMMEDIATE")  # fails now, not after hours of work, if the file is read-only
            self._connection.rollback()

    @classmethod
    def copy(cls, path: Path) -> Store:
        """A store in memory with what the file ``path`` holds, if there is one.

        The file is not written to, except that a transaction that a killed process left is rolled back.

        Raises
        ------
        ValueError
            If the file is not a store of this version.
        """
        store = cls.__new__(cls)
        store.path, store.command = path, ""
        with store._usable():
            store._connection = sqlite3.connect(":memory:")
            if path.exists():
                _check_journal(path)
                # writable, because SQLite first rolls back a transaction that a killed process left unfinished
                place = f"{path.resolve().as_uri()}?mode=rw"
                with contextlib.closing(sqlite3.connect(place, uri=True, timeout=60)) as file:
                    file.backup(store._connection)
            store._check()
        return store

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ValueError(
                f"store: cannot use {str(self.path)!r} ({error}); move it away or give another --out"
            ) from None

    def _check(self) -> None:
        """Create missing tables, and refuse a file that holds anything else: it may come from somebody else, and its
        views and triggers would run with the statements here.
        """
        for name, sql in self._connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"):
            if name not in ROW_TABLES or not sql.upper().startswith("CREATE TABLE "):
                raise sqlite3.DatabaseError(f"it holds {printable(name)!r}, which is no table of results")
        self._connection.executescript(_SCHEMA)
        for table in ROW_TABLES:
            if [row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")] != list(columns_of(table)):
                raise sqlite3.DatabaseError("its tables are those of another version")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def _select(self, table: str, keys: Iterable[str] | None, condition: str = "TRUE") -> pd.DataFrame:
        """Rows of a table; None for ``keys``: all of them."""
        rows: list[tuple[Any, ...]] = []
        try:
            if keys is None:
                rows += self._connection.execute(f"SELECT * FROM {table} WHERE {condition}")
            wanted = list(dict.fromkeys(keys or ()))
            for start in range(0, len(wanted), 500):  # SQLite bounds the number of placeholders in one statement
                part = wanted[start : start + 500]
                places = ",".join("?" * len(part))
                rows += self._connection.execute(f"SELECT * FROM {table} WHERE key IN ({places}) AND {condition}", part)
            return typed(pd.DataFrame(rows, columns=list(columns_of(table)), dtype=object), table)
        except (sqlite3.Error, ValueError) as error:
            raise ValueError(
                f"store: cannot read {str(self.path)!r} ({error}); move it away or give another --out"
            ) from None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise ValueError(f"store: cannot write to {str(self.path)!r} ({error}); what it holds is kept") from None

    def finished(self, keys: Iterable[str]) -> pd.DataFrame:
        """Rows of the finished cells among ``keys``, in no particular order.

        Raises
        ------
        ValueError
            If the AUCs of one of them cannot be read.
        """
        return checked_aucs(self._select("cells", keys), self.path)

    def failed(self, keys: Iterable[str]) -> pd.DataFrame:
        """Rows of the cells among ``keys`` whose last attempt ended in an error, with ``cell`` and ``error``.

        What another run has finished has not failed.
        """
        return self._select("failures", keys, _UNFINISHED)

    def of(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """A row for each of ``cells``, in their order and with their names, finished or not.

        Columns are those of finished cells, and ``cell`` and ``error`` of those that ended in an error; all that is
        not known of a cell is NaN.
        """
        planned = pd.DataFrame([cell.row() for cell in cells])
        keys = list(planned["key"])
        finished, failed = self.finished(keys), self.failed(keys)
        measured = [column for column in columns_of("cells") if column == "key" or column not in planned]
        rows = planned.merge(finished[measured], how="left", on="key")
        return rows.merge(failed[["key", "cell", "error"]], how="left", on="key")

    def rows(self) -> Rows:
        """Everything that the store holds."""
        return Rows(
            cells=checked_aucs(self._select("cells", None), self.path),
            auxiliaries=self._select("auxiliaries", None),
            failures=self._select("failures", None, _UNFINISHED),
        )

    def take(self, rows: Rows, cells: Iterable[Cell]) -> None:
        """Keep those of another store's rows that belong to ``cells``; what is there already stays.

        Raises
        ------
        ValueError
            If one of them says of a cell's data, settings, draw or class what is not so.
        """
        planned = {cell.key: cell for cell in cells}
        for row in records(rows.cells[rows.cells["key"].isin(planned)]):
            expected = planned[row["key"]].row()
            for name in _IDENTITY:
                given = row[name]
                if given != expected[name]:
                    raise ValueError(
                        f"--from: the row of cell {row['key']!r} has {name} {str(given)[:60]!r}, where the cell has "
                        f"{str(expected[name])[:60]!r}; python -m bench.verify names the faults of a published table"
                    )
        wanted = {"cells": set(planned), "auxiliaries": {cell.auxiliary_key for cell in planned.values()}}
        with self._transaction() as connection:
            for table, keys in wanted.items():
                frame: pd.DataFrame = getattr(rows, table)
                for row in records(frame[frame["key"].isin(keys)]):
                    _insert(connection, table, row)

    def auxiliaries(self, keys: Iterable[str]) -> pd.DataFrame:
        """Rows of the trainings on auxiliary images among ``keys``."""
        return self._select("auxiliaries", keys)

    def add(
        self,
        cell: Cell,
        *,
        aucs: dict[str, float],
        fit_seconds: float,
        score_seconds: float,
        parameters: int | None = None,
        device: str,
        threads: int,
        versions: dict[str, str],
        git_commit: str,
    ) -> None:
        """Keep a finished cell. ``aucs`` holds the AUC of each score variant, the method's own score first."""
        row: dict[str, Any] = {
            **cell.row(),
            "auc": next(iter(aucs.values())),
            "aucs": json.dumps(aucs),
            "fit_seconds": fit_seconds,
            "score_seconds": score_seconds,
            "parameters": parameters,
            "device": device,
            "threads": threads,
            "versions": canonical_json(versions),
            "git_commit": git_commit,
            "command": self.command,
            "finished": _now(),
        }
        with self._transaction() as connection:
            _insert(connection, "cells", row)
            connection.execute("DELETE FROM failures WHERE key = ?", (cell.key,))

    def add_failure(self, cell: Cell, error: str) -> bool:
        """Store that a cell ended in an error; it counts as not finished.

        Returns
        -------
        bool
            False, with nothing stored, if another run has finished the cell in the meantime.
        """
        row = {
            **cell.row(),
            "cell": printable(str(cell)),
            "error": printable(error),
            "command": self.command,
            "failed": _now(),
        }
        with self._transaction() as connection:
            noted = connection.execute(
                f"INSERT OR REPLACE INTO failures ({','.join(row)}) SELECT {','.join('?' * len(row))} "
                "WHERE NOT EXISTS (SELECT 1 FROM cells WHERE key = ?)",
                (*row.values(), cell.key),
            )
        return noted.rowcount > 0

    def add_auxiliary(
        self, cell: Cell, *, seconds: float, device: str, threads: int, versions: dict[str, str], git_commit: str
    ) -> None:
        """Store a finished training on auxiliary images, with its time and where it ran."""
        described = cell.row()
        row = {
            "key": cell.auxiliary_key,
            "method": printable(str(cell.method.auxiliary_settings.get("method", cell.method.name))),
            "source_digest": cell.method.auxiliary_source,
            "settings": described["auxiliary_settings"],
            "auxiliary": described["auxiliary"],
            "auxiliary_title": described["auxiliary_title"],
            "auxiliary_fingerprint": cell.auxiliary_fingerprint,
            "seed": cell.auxiliary_seed,
            "seconds": seconds,
            "device": device,
            "threads": threads,
            "versions": canonical_json(versions),
            "git_commit": git_commit,
            "command": self.command,
            "finished": _now(),
        }
        with self._transaction() as connection:
            _insert(connection, "auxiliaries", row, "REPLACE")


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any], on_conflict: str = "IGNORE") -> None:
    columns, places = ",".join(row), ",".join("?" * len(row))
    connection.execute(f"INSERT OR {on_conflict} INTO {table} ({columns}) VALUES ({places})", tuple(row.values()))


def _check_journal(path: Path) -> None:
    """Refuse a rollback journal that names a super-journal: SQLite would delete the file of that name.

    A store is the only database in its transactions, so SQLite never writes such a journal for it.

    Raises
    ------
    sqlite3.DatabaseError
        If the journal of the database ``path`` names another file.
    """
    try:
        with open(f"{path}-journal", "rb") as stream:
            stream.seek(-len(_NAMES_A_FILE), os.SEEK_END)
            end = stream.read()
    except OSError:  # there is none, or none so long
        return
    if end == _NAMES_A_FILE:
        raise sqlite3.DatabaseError("its journal names another file")
