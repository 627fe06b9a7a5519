"""What was timed, as rows and as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.engine import provenance
from bench.timing import contenders
from bench.timing.contenders import Contender


def rows(size: int, timed: Sequence[Contender], **same: object) -> pd.DataFrame:
    """Medians and quartiles in milliseconds, and ratios to ripser and to the best peer of the same task.

    ``same`` holds what all rows share: the metric, the kind of points, their dimension.
    """
    found = []
    for contender in timed:
        medians = {c.name: _quantile(c, 0.5) for c in timed if c.task == contender.task and not c.own}
        median = _quantile(contender, 0.5)
        ripser = next((value for name, value in medians.items() if name.startswith("ripser")), math.nan)
        found.append(
            {
                "task": contender.task,
                "size": size,
                "contender": contender.name,
                "median_ms": median,
                "lower_quartile_ms": _quantile(contender, 0.25),
                "upper_quartile_ms": _quantile(contender, 0.75),
                "repeats": len(contender.seconds),
                "faster_than_ripser": ripser / median,
                "faster_than_best_peer": min(medians.values(), default=math.nan) / median,
                "best_peer": min(medians, key=lambda name: medians[name], default=""),
                **same,
            }
        )
    return pd.DataFrame(found)


def _quantile(contender: Contender, q: float) -> float:
    """Milliseconds of a step."""
    return 1000 * float(np.quantile(contender.seconds, q)) / contender.steps


def machine(device: torch.device) -> str:
    """Graphics card, processor and threads."""
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    threads = torch.get_num_threads()
    return f"{gpu}{provenance.processor()}, {threads} thread{'s' if threads > 1 else ''}"


def with_provenance(
    table: pd.DataFrame, device: torch.device, peer_versions: dict[str, str], command: str
) -> pd.DataFrame:
    """The table with all that is needed to read each row alone."""
    versions = {**provenance.versions(), **peer_versions}
    return table.assign(
        machine=machine(device),
        device=device.type,
        versions="; ".join(f"{name} {version}" for name, version in versions.items()),
        commit=provenance.git_commit(),
        date=datetime.now(UTC).date().isoformat(),
        command=command,
    )


def text(table: pd.DataFrame) -> Iterator[str]:
    """Lines for people: a paragraph per task and size, the fastest first, with the ratios of ours to the best peer."""
    for (task, size), group in table.groupby(["task", "size"], sort=False):
        first = group.iloc[0]
        clouds = f"batch of {first['batch']} × {size} points" if task == contenders.BATCH else f"{task}, {size} points"
        own_title = task in (contenders.LOSS, contenders.TRAINING)
        yield ""
        yield str(task) if own_title else f"{clouds} ({first['points']}) in R^{first['dim']}, {first['metric']}"
        for row in group.sort_values("median_ms").to_dict("records"):
            quartiles = f"[{row['lower_quartile_ms']:.4g}, {row['upper_quartile_ms']:.4g}]"
            yield f"  {row['median_ms']:10.4g} ms {quartiles:>20}  {row['contender']}{_ratios(row)}"
        memory = group["extra_memory_mib"].dropna()
        if len(memory):
            yield f"  merge_edges takes {memory.iloc[0]:.1f} MiB beyond its input"


def _ratios(row: dict[Any, Any]) -> str:
    if not row["contender"].startswith("corel") or math.isnan(row["faster_than_best_peer"]):
        return ""
    found = f"   {row['faster_than_best_peer']:.3g} × {row['best_peer']}"
    if not math.isnan(row["faster_than_ripser"]) and not row["best_peer"].startswith("ripser"):
        found += f", {row['faster_than_ripser']:.3g} × ripser"
    return found
