"""Rows of an invented experiment, with every column of the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.engine.cells import Cell, MethodSpec, canonical_json
from bench.engine.store import columns_of

MakeRows = Callable[..., pd.DataFrame]


@pytest.fixture
def make_rows() -> MakeRows:
    """A function that makes the rows of methods × m × runs × classes; what is not given is drawn from a fixed seed."""

    def make(
        methods: Sequence[str] = ("corel", "dsebm", "adt"),
        *,
        m: Sequence[int | str] = (120,),
        runs: int = 2,
        classes: Sequence[str] = ("cat", "dog", "frog"),
        dataset: str = "cifar10",
        auc: Callable[[str, int, int], Mapping[str, float]] | None = None,
        failed: Mapping[tuple[str, int, int], str] | None = None,
        planned: Sequence[tuple[str, int, int]] = (),
        **more: Any,
    ) -> pd.DataFrame:
        generator, records = np.random.default_rng(0), []
        for method in methods:
            needs = method == "corel"
            changes = more.pop("changes", {})
            learned = {"method": method} if needs else {}
            spec = MethodSpec(method, "paper", {"lam": 20.0} | changes, 1, "", needs, learned, changes=changes)
            auxiliary = "cifar100" if needs else None
            for number in m:
                for run in range(runs):
                    for index, name in enumerate(classes):
                        cell = Cell(dataset, "f" * 64, spec, auxiliary, auxiliary, number, run, index, name, 0,
                                    **{"classes": len(classes), "test_size": 1000, **more})  # fmt: skip
                        where = (method, run, index)
                        row = dict.fromkeys(columns_of("cells")) | cell.row() | {"cell": None, "error": None}
                        if failed and where in failed:
                            row |= {"cell": str(cell), "error": failed[where]}
                        elif where not in planned:
                            aucs = auc(*where) if auc else {"": round(generator.uniform(0.6, 0.9), 6)}
                            row |= {
                                "auc": next(iter(aucs.values())), "aucs": json.dumps(aucs), "fit_seconds": 1.5,
                                "score_seconds": 0.25, "parameters": 113_888 if needs else pd.NA,
                                "device": "cpu (example)", "threads": 1,
                                "versions": canonical_json({"python": "3.11", "torch": "2.6"}), "git_commit": "c" * 40,
                                "command": "python -m bench.table1", "finished": "2026-01-02T03:04:05+00:00",
                            }  # fmt: skip
                        records.append(row)
        rows = pd.DataFrame(records, columns=[*columns_of("cells"), "cell", "error"])
        return rows.astype({"parameters": "Int64"})

    return make
