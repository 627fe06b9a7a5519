"""Prints each row of a table as soon as it is finished, while the others are still computed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from bench.analysis import tables
from bench.engine.cells import Cell, canonical_json
from bench.engine.store import Store


class RowsAsTheyFinish:
    """Prints a row to standard error, above the progress bar, when the last of its cells has ended.

    Parameters
    ----------
    cells
        The plan.
    store
        Holds the cells that are finished, and receives the others.
    ended
        Keys of cells that are not run again though they are not finished.
    """

    def __init__(self, cells: Sequence[Cell], store: Store, ended: set[str]) -> None:
        self._store = store
        self._cells: dict[str, list[Cell]] = {}
        for cell in cells:
            self._cells.setdefault(self._row(cell), []).append(cell)
        plan = pd.DataFrame([group[0].row() for group in self._cells.values()])
        self._settings = dict(zip(self._cells, tables.changed_settings(plan), strict=True))
        ended = ended | set(store.finished(cell.key for cell in cells)["key"])
        self._left = {row: {cell.key for cell in group} - ended for row, group in self._cells.items()}

    def on_cell(self, cell: Cell) -> None:
        """Take note of a cell that has ended."""
        row = self._row(cell)
        self._left[row].discard(cell.key)
        if self._left[row] or not any(self._left.values()):  # the last row comes with the whole table
            return
        table = tables.build(self._store.of(self._cells[row])).assign(settings=self._settings[row])
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # standard error may be closed
                tqdm.write("\n".join(tables.to_lines(tables.for_people(table))), file=sys.stderr)

    @staticmethod
    def _row(cell: Cell) -> str:
        return canonical_json(
            [cell.dataset, cell.method_identity, cell.method.settings, cell.auxiliary, cell.train_per_class]
        )
