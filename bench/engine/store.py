"""Finished cells on disk: one SQLite row each, written in one transaction."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bench.engine.cells import Cell, canonical_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY,
    dataset TEXT NOT NULL,
    dataset_fingerprint TEXT NOT NULL,
    method TEXT NOT NULL,
    settings TEXT NOT NULL,
    auxiliary TEXT,
    auxiliary_fingerprint TEXT,
    train_per_class TEXT NOT NULL,
    run INTEGER NOT NULL,
    class INTEGER NOT NULL,
    class_name TEXT NOT NULL,
    auc REAL NOT NULL,
    aucs TEXT NOT NULL,
    fit_seconds REAL NOT NULL,
    score_seconds REAL NOT NULL,
    seeds TEXT NOT NULL,
    device TEXT NOT NULL,
    threads INTEGER NOT NULL,
    versions TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    finished TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY,
    cell TEXT NOT NULL,
    error TEXT NOT NULL,
    failed TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS auxiliaries (
    key TEXT PRIMARY KEY,
    method TEXT NOT NULL,
    settings TEXT NOT NULL,
    auxiliary TEXT NOT NULL,
    auxiliary_fingerprint TEXT NOT NULL,
    seed INTEGER NOT NULL,
    seconds REAL NOT NULL,
    device TEXT NOT NULL,
    threads INTEGER NOT NULL,
    finished TEXT NOT NULL
);
"""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Names of the columns of each table, in order."""
    tables = ("cells", "failures", "auxiliaries")
    return {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}


def _is_aucs(text: object) -> bool:
    """Whether ``text`` is what :meth:`Store.add` writes for the AUCs of a cell."""
    try:
        aucs = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    numbers = aucs.values() if isinstance(aucs, dict) else ()
    return bool(numbers) and all(isinstance(auc, float | int) and math.isfinite(auc) for auc in numbers)


class Store:
    """The finished cells of an output folder.

    A row is there whole or not at all, also after ``kill -9``; a finished cell is never replaced.

    Parameters
    ----------
    path
        The SQLite file; made where there is none.

    Raises
    ------
    ValueError
        If the file is not a store of this version or cannot be written to; of every method, if it can no longer be
        read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(path, timeout=60)
            self._connection.executescript(_SCHEMA)
            with contextlib.closing(sqlite3.connect(":memory:")) as example:
                example.executescript(_SCHEMA)
                if _columns(self._connection) != _columns(example):
                    raise sqlite3.DatabaseError("its tables are those of another version")
            self._connection.execute("BEGIN IMMEDIATE")  # a file that can only be read is found out before the work
            self._connection.rollback()
        except sqlite3.Error as error:
            raise ValueError(f"store: cannot use {str(path)!r} ({error}); move it away or give another --out") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def _select(self, table: str, keys: Iterable[str], condition: str = "") -> pd.DataFrame:
        keys = list(dict.fromkeys(keys))
        rows: list[tuple[Any, ...]] = []
        try:
            columns = [column[0] for column in self._connection.execute(f"SELECT * FROM {table} WHERE 0").description]
            for start in range(0, len(keys), 500):  # SQLite bounds the number of placeholders in one statement
                part = keys[start : start + 500]
                query = f"SELECT * FROM {table} WHERE key IN ({','.join('?' * len(part))}) {condition}"
                rows += self._connection.execute(query, part)
        except sqlite3.Error as error:
            raise ValueError(
                f"store: cannot read {str(self.path)!r} ({error}); move it away or give another --out"
            ) from None
        return pd.DataFrame(rows, columns=columns)

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
        rows = self._select("cells", keys)
        for key, aucs in zip(rows["key"], rows["aucs"], strict=True):
            if not _is_aucs(aucs):
                raise ValueError(
                    f"store: {str(self.path)!r}: the aucs of cell {key!r} are {str(aucs)[:60]!r}; accepted are numbers "
                    "by name in JSON; delete that row and the cell is run again"
                )
        return rows

    def failed(self, keys: Iterable[str]) -> pd.DataFrame:
        """Rows (key, cell, error, failed) of the cells among ``keys`` whose last attempt ended in an error.

        What another run has finished has not failed.
        """
        return self._select("failures", keys, "AND key NOT IN (SELECT key FROM cells)")

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
        device: str,
        threads: int,
        versions: dict[str, str],
        git_commit: str,
    ) -> None:
        """Keep a finished cell. ``aucs`` holds the AUC of each score variant, the method's own score first."""
        row: dict[str, Any] = {
            "key": cell.key,
            "dataset": cell.dataset,
            "dataset_fingerprint": cell.dataset_fingerprint,
            "method": cell.method.name,
            "settings": canonical_json(cell.method.settings),
            "auxiliary": cell.auxiliary,
            "auxiliary_fingerprint": cell.auxiliary_fingerprint,
            "train_per_class": str(cell.train_per_class),
            "run": cell.run,
            "class": cell.class_index,
            "class_name": cell.class_name,
            "auc": next(iter(aucs.values())),
            "aucs": json.dumps(aucs),
            "fit_seconds": fit_seconds,
            "score_seconds": score_seconds,
            "seeds": canonical_json(
                {"base": cell.base_seed, "method": cell.method_seed, "auxiliary": cell.auxiliary_seed}
            ),
            "device": device,
            "threads": threads,
            "versions": canonical_json(versions),
            "git_commit": git_commit,
            "finished": _now(),
        }
        with self._transaction() as connection:
            connection.execute(
                f"INSERT OR IGNORE INTO cells ({','.join(row)}) VALUES ({','.join('?' * len(row))})",
                tuple(row.values()),
            )
            connection.execute("DELETE FROM failures WHERE key = ?", (cell.key,))

    def add_failure(self, cell: Cell, error: str) -> bool:
        """Note that a cell ended in an error. It counts as not finished: the next run tries it again.

        Returns
        -------
        bool
            False if another run has finished the cell in the meantime: then there is nothing to note.
        """
        with self._transaction() as connection:
            noted = connection.execute(
                "INSERT OR REPLACE INTO failures SELECT ?, ?, ?, ? "
                "WHERE NOT EXISTS (SELECT 1 FROM cells WHERE key = ?)",
                (cell.key, str(cell), error, _now(), cell.key),
            )
        return noted.rowcount > 0

    def add_auxiliary(self, cell: Cell, *, seconds: float, device: str, threads: int) -> None:
        """Note a finished training on auxiliary images and what it took."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO auxiliaries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    cell.auxiliary_key,
                    str(cell.method.auxiliary_settings.get("method", cell.method.name)),
                    canonical_json(cell.method.auxiliary_settings),
                    cell.auxiliary,
                    cell.auxiliary_fingerprint,
                    cell.auxiliary_seed,
                    seconds,
                    device,
                    threads,
                    _now(),
                ),
            )
