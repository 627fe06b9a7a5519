"""``python -m bench.runtime``: the runtime study of the paper's Appendix C (Fig. 7), and beyond.

Every contender gets the same points, one input after the other in one process, in turns; what is timed is the way
from the points to the death times, construction of the complex included. Peers are called through their fastest
documented entry (:mod:`bench.timing.peers`); those that are not installed are named.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

import corel
from bench.analysis import tables
from bench.engine import provenance
from bench.timing import peers
from bench.engine.command_line import Parser, positive_int, run, writable_directory
from bench.timing.peers import Call
from corel._device import resolve_device

PROGRAM = "bench.runtime"

#: A contender is not timed at a size where one call is expected to take longer than this many seconds; ours may take
#: longer than a peer.
CALL_LIMIT, OWN_CALL_LIMIT = 6.0, 60.0
#: Seconds that the repeats of one contender at one size may take together; at least three are made.
TIME_LIMIT = 8.0
#: Before larger sizes, one call of each at this size says what to expect.
PROBE = 256
#: Up to these sizes: batches, float64 and every form of ours; Algorithm 3 in dimension 0; in dimension 1.
EVERYTHING, REDUCTION, DIMENSION_1 = 2048, 512, 256
#: Sizes of the project's own aims.
TARGET_SIZES = [100, 128, 2048, 10_000, 50_000]
LARGEST = 100_000
LOSS_TASK = "loss 100 × 160, 16 branches"


# ---------------------------------------------------------------------------------------------------------------------
# What is timed


@dataclass
class Contender:
    """One line of the study. ``call`` takes an input that ``convert`` made of the points, outside of the time."""

    task: str
    name: str
    call: Callable[[Any], object]
    convert: Callable[[np.ndarray], Any] = lambda points: points
    seconds: list[float] = field(default_factory=list)

    @property
    def own(self) -> bool:
        """Whether it is ours."""
        return self.name.startswith("corel")


def own_name(what: str, device: torch.device) -> str:
    """How a form of ours is called in the tables."""
    return f"corel {what}" + ("" if device.type == "cpu" else f", {device.type}")


def contenders(n: int, device: torch.device, others: dict[str, Call]) -> list[Contender]:
    """Everything that is timed at ``n`` points: the inputs are (batch, n, dim) float64 arrays."""
    single, double = _tensor(device, torch.float32), _tensor(device, torch.float64)
    grad = _tensor(device, torch.float32, grad=True)
    loss = corel.ConnectivityLoss(eta=2.0)
    deaths_backward = _backward(lambda points: corel.death_times(points).sum())
    found: list[Contender] = []

    def ours(task: str, what: str, call: Callable[..., object], convert: Callable[[np.ndarray], Any]) -> None:
        def of_the_first(points: np.ndarray) -> object:
            return convert(points[0])

        found.append(Contender(task, own_name(what, device), call, convert if task == "batch" else of_the_first))

    ours("one cloud", "merge_edges, float32", corel.merge_edges, single)
    ours("one cloud", "death_times, float32", corel.death_times, single)
    ours("gradient", "death_times, forward + backward", deaths_backward, grad)
    if n <= EVERYTHING:
        ours("one cloud", "merge_edges, float64", corel.merge_edges, double)
        ours("one cloud", "death_times, float64", corel.death_times, double)
        ours("gradient", "ConnectivityLoss, forward", loss, single)
        ours("gradient", "ConnectivityLoss, forward + backward", _backward(loss), grad)
        ours("batch", "death_times, batched", corel.death_times, single)
        ours("batch", "death_times, batched, float64", corel.death_times, double)
        ours("batch", "death_times, batched, forward + backward", deaths_backward, grad)
    if n <= REDUCTION:
        ours("one cloud", "vr_persistence, reduction", lambda points: _reduce(points, 0), single)
    if n <= DIMENSION_1:
        ours("dimension 1", "vr_persistence, reduction", lambda points: _reduce(points, 1), single)
        ours("dimension 1", "vr_persistence, auto", lambda points: corel.vr_persistence(points, max_dim=1), single)
        if "ripser" in others:
            found.append(Contender("dimension 1", "ripser", peers.ripser(1), _first))
    found += [Contender("one cloud", name, call, _first) for name, call in others.items()]
    if n <= EVERYTHING:
        found += [Contender("batch", f"{name}, one by one", _each(call)) for name, call in others.items()]
    return found


def _tensor(device: torch.device, dtype: torch.dtype, grad: bool = False) -> Callable[[np.ndarray], torch.Tensor]:
    return lambda points: torch.from_numpy(points).to(device, dtype).requires_grad_(grad)


def _backward(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], object]:
    def call(points: torch.Tensor) -> object:
        points.grad = None
        function(points).backward()
        return points.grad

    return call


def _first(points: np.ndarray) -> np.ndarray:
    return points[0]


def _each(call: Call) -> Call:
    return lambda points: [call(cloud) for cloud in points]


def _reduce(points: torch.Tensor, max_dim: int) -> object:
    return corel.vr_persistence(points, max_dim=max_dim, algorithm="reduction")


# ---------------------------------------------------------------------------------------------------------------------
# Timing

#: Size and seconds of the last calls of each contender, by task and name.
Expected = dict[tuple[str, str], tuple[int, float]]


#: Seconds of other calls before a short one is timed.
LOOP = 0.002


def time_size(
    n: int, dim: int, batch: int, repeats: int, device: torch.device, others: dict[str, Call], expected: Expected
) -> tuple[list[Contender], list[str]]:
    """Time all contenders at one size, in turns of random order, on a new input each turn.

    A short call is timed in a loop of its like on another input, as it is used: the first ones find the caches full of
    the other contenders.

    One that would take too long, by ``expected`` and its growth with n², is left out and named in the second result.
    """
    generator = np.random.default_rng(n)
    running, skipped, longest = [], [], 0.0
    for contender in contenders(n, device, others):
        before, seconds = expected.get((contender.task, contender.name), (n, 0.0))
        estimate = seconds * (n / before) ** 2
        if estimate > (OWN_CALL_LIMIT if contender.own else CALL_LIMIT):
            skipped.append(f"{contender.task}, {n} points: {contender.name} left out, about {estimate:.0f} s a call")
            continue
        longest = max(longest, estimate)
        running.append(contender)
    clouds = batch if n <= EVERYTHING else 1
    # short calls are warmed up by their like; for long ones it is enough that their code is loaded
    warm_up = generator.normal(size=(clouds, n if longest < 0.5 else min(n, PROBE), dim))
    for contender in running:
        timed(contender, warm_up, device)
    for turn in range(repeats):
        points = generator.normal(size=(clouds, n, dim))
        for index in generator.permutation(len(running)):
            contender = running[index]
            if turn < 3 or sum(contender.seconds) < TIME_LIMIT:
                loop = 0.0
                while turn > 0 and loop + contender.seconds[-1] < LOOP:
                    loop += timed(contender, warm_up, device)
                contender.seconds.append(timed(contender, points, device))
        warm_up = points
    for contender in running:
        expected[contender.task, contender.name] = n, float(np.median(contender.seconds))
    return running, skipped


def timed(contender: Contender, points: np.ndarray, device: torch.device) -> float:
    """Seconds of one call; of ours on a GPU by its own clock, from an idle device until all work is done."""
    given = contender.convert(points)
    if device.type == "cuda" and contender.own:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        contender.call(given)
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1000
    started = time.perf_counter()
    contender.call(given)
    return time.perf_counter() - started


def time_loss(repeats: int, device: torch.device) -> list[Contender]:
    """Time the connectivity loss as the paper trains with it: 100 codes of 160 dimensions in 16 branches."""
    loss = corel.ConnectivityLoss(eta=2.0, branches=16)
    single, grad = _tensor(device, torch.float32), _tensor(device, torch.float32, grad=True)
    found = [
        Contender(LOSS_TASK, own_name("ConnectivityLoss, forward", device), loss, single),
        Contender(LOSS_TASK, own_name("ConnectivityLoss, forward + backward", device), _backward(loss), grad),
    ]
    if device.type == "cuda":
        graph = _graph(loss, device)
        found.append(Contender(LOSS_TASK, own_name("ConnectivityLoss, forward + backward in a graph", device), graph))
    generator = np.random.default_rng(0)
    for turn in range(repeats + 3):
        points = generator.normal(size=(100, 160))
        for contender in found:
            seconds = timed(contender, points, device)
            if turn >= 3:  # the first ones warm up
                contender.seconds.append(seconds)
    return found


def _graph(loss: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> Callable[[Any], object]:
    """Forward and backward captured in a CUDA graph, to be replayed."""
    code = torch.randn(100, 160, device=device, requires_grad=True)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            loss(code).backward()
    torch.cuda.current_stream(device).wait_stream(side)
    code.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss(code).backward()
    return lambda points: graph.replay()


def training_step(device: torch.device) -> float:
    """Median seconds of a training step of the autoencoder with the paper's settings."""
    from bench.training_speed import own_step

    step = own_step(device)
    x = torch.rand(100, 3, 32, 32, device=device)
    seconds = []
    for turn in range(13):
        started = time.perf_counter()
        step(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn >= 3:
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


# Linux keeps the peak of a process's memory, and resets it when told to; a small cloud loads all code before.
_MEMORY = """
import sys
from pathlib import Path
import torch, corel

def kibibytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key + ":")).split()[1])

n, dim = int(sys.argv[1]), int(sys.argv[2])
for size in (256, 6_000):  # both kernels are loaded
    corel.merge_edges(torch.randn(size, dim))
points = torch.randn(n, dim, generator=torch.Generator().manual_seed(n))
Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
corel.merge_edges(points)
print(kibibytes("VmHWM") - before)
"""


def extra_memory(n: int, dim: int, device: torch.device) -> float:
    """MiB that ``merge_edges`` of ``n`` points in float32 takes beyond the input at its peak, result included.

    On the CPU in a process of its own, and on Linux alone; NaN elsewhere.
    """
    if device.type == "cuda":
        points = torch.randn(n, dim, device=device)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        corel.merge_edges(points)
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    command = [sys.executable, "-c", _MEMORY, str(n), str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    return float(done.stdout) / 1024 if done.returncode == 0 else math.nan


# ---------------------------------------------------------------------------------------------------------------------
# Tables and picture


def summary(size: int, timed_calls: Iterable[Contender]) -> pd.DataFrame:
    """Medians, quartiles in milliseconds, and ratios to ripser and to the best peer of the same task."""
    rows = []
    timed_calls = list(timed_calls)
    for contender in timed_calls:
        medians = {c.name: float(np.median(c.seconds)) for c in timed_calls if c.task == contender.task and not c.own}
        median = float(np.median(contender.seconds))
        ripser = next((value for name, value in medians.items() if name.startswith("ripser")), math.nan)
        rows.append(
            {
                "task": contender.task,
                "points": size,
                "contender": contender.name,
                "median_ms": 1000 * median,
                "lower_quartile_ms": 1000 * float(np.quantile(contender.seconds, 0.25)),
                "upper_quartile_ms": 1000 * float(np.quantile(contender.seconds, 0.75)),
                "repeats": len(contender.seconds),
                "faster_than_ripser": ripser / median,
                "faster_than_best_peer": min(medians.values(), default=math.nan) / median,
                "best_peer": min(medians, key=lambda name: medians[name], default=""),
            }
        )
    return pd.DataFrame(rows)


def targets(table: pd.DataFrame, memory: dict[int, float], step: float, device: torch.device) -> list[str]:
    """What the project sets itself to reach, row by row, for what was measured."""
    lines = []

    def value(task: str, points: int, what: str, column: str) -> float:
        of_it = table["contender"] == own_name(what, device)
        rows = table[(table["task"] == task) & (table["points"] == points) & of_it]
        return float(rows[column].iloc[0]) if len(rows) else math.nan

    def line(text: str, got: float, wanted: float, unit: str, at_least: bool = True) -> None:
        if not math.isnan(got):
            reached = got >= wanted if at_least else got <= wanted
            sign = "≥" if at_least else "≤"
            lines.append(
                f"{'reached' if reached else 'MISSED '}  {text}: {got:.3g} {unit} (aim {sign} {wanted:g} {unit})"
            )

    for points, ripser, best in ((128, 40, 2), (2048, 300, 5), (10_000, None, 5)):
        for dtype in ("float32", "float64"):
            what = f"death_times, {dtype}"
            if ripser:
                got = value("one cloud", points, what, "faster_than_ripser")
                line(f"{points} points, {what}, against ripser", got, ripser, "×")
            got = value("one cloud", points, what, "faster_than_best_peer")
            line(f"{points} points, {what}, against the best peer", got, best, "×")
    large, allowed = (100_000, 1.0) if device.type == "cuda" else (50_000, 2.5)
    got = value("one cloud", large, "merge_edges, float32", "median_ms") / 1000
    line(f"{large} points, merge_edges, float32", got, allowed, "s", at_least=False)
    if device.type == "cpu":
        line("50000 points, memory beyond the input", memory.get(50_000, math.nan), 100, "MiB", at_least=False)
    batched = "death_times, batched"
    line("batch of 100 points, against ripser", value("batch", 100, batched, "faster_than_ripser"), 80, "×")
    line("batch of 100 points, against the best peer", value("batch", 100, batched, "faster_than_best_peer"), 4, "×")
    if device.type == "cuda":
        got = value(LOSS_TASK, 100, "ConnectivityLoss, forward + backward in a graph", "median_ms")
        line("ConnectivityLoss of 16 × 100 points, forward + backward in a graph", got, 0.3, "ms", at_least=False)
    else:
        got = value(LOSS_TASK, 100, "ConnectivityLoss, forward + backward", "median_ms")
        line("ConnectivityLoss 100 × 160, forward + backward", got, 0.7, "ms", at_least=False)
        line("ConnectivityLoss, part of a training step", got / (10 * step), 3, "%", at_least=False)
    for points in sorted(set(table.loc[table["task"] == "dimension 1", "points"])):
        got = value("dimension 1", points, "vr_persistence, reduction", "faster_than_ripser")
        if not math.isnan(got):
            lines.append(f"no aim   {points} points, reduction in dimension 1, against ripser: {got:.3g} ×")
    return lines


def draw(table: pd.DataFrame, step: float, dim: int, source: str, path: Path) -> None:
    """Write the log–log plot of Fig. 7: one cloud, forward, over its size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from corel.checkpoint import write_atomically

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    # the colours of Okabe and Ito, which people tell apart however they see colours
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
    markers = "os^vD<>pP*Xhd"
    shown = (table["task"] == "one cloud") & ~table["contender"].str.contains("merge_edges|float64", regex=True)
    rows = table[shown]
    sizes = sorted(set(rows["points"]))
    for index, (name, group) in enumerate(rows.groupby("contender", sort=False)):
        own = str(name).startswith("corel")
        axes.errorbar(
            group["points"],
            group["median_ms"],
            [group["median_ms"] - group["lower_quartile_ms"], group["upper_quartile_ms"] - group["median_ms"]],
            label=str(name),
            color=colours[index % len(colours)],
            marker=markers[index % len(markers)],
            linewidth=2.5 if own else 1.2,
            markersize=5,
            capsize=2,
        )
    axes.axhline(1000 * step, color="#444444", linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="points", ylabel="milliseconds (median, quartiles)")
    if sizes:
        axes.text(sizes[0], 1000 * step, "a training step of the autoencoder", va="bottom", fontsize=8)
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.minorticks_off()
    axes.set_title(f"0-dimensional Rips persistence of a unit Gaussian in $\\mathbb{{R}}^{{{dim}}}$, L1", fontsize=10)
    axes.grid(True, which="major", linewidth=0.3)
    figure.supxlabel(source, fontsize=6, x=0.01, ha="left")
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=150))
    plt.close(figure)


@dataclass
class Study:
    """What was measured, where and how."""

    device: torch.device
    dim: int
    batch: int
    command: str
    peer_versions: dict[str, str]
    step: float = math.nan
    frames: list[pd.DataFrame] = field(default_factory=list)
    memory: dict[int, float] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """All that was timed."""
        return pd.concat(self.frames, ignore_index=True)

    def place(self) -> str:
        """The machine."""
        gpu = f"{torch.cuda.get_device_name(self.device)}, " if self.device.type == "cuda" else ""
        return f"{gpu}{provenance.processor()}, {torch.get_num_threads()} threads"

    def write(self, out: Path) -> None:
        """Write runtime.csv, every row with all that is needed to read it alone, and runtime.png."""
        table = self.table()
        full = table.copy()
        of_memory = table["contender"] == own_name("merge_edges, float32", self.device)
        full["extra_memory_mib"] = table["points"].map(self.memory).astype(float).where(of_memory)
        full["dim"], full["batch"], full["training_step_ms"] = self.dim, self.batch, 1000 * self.step
        full["machine"], full["device"] = self.place(), self.device.type
        versions = {**provenance.versions(), **self.peer_versions}
        full["versions"] = "; ".join(f"{name} {version}" for name, version in versions.items())
        full["commit"], full["date"] = provenance.git_commit(), datetime.now(UTC).date().isoformat()
        full["command"] = self.command
        tables.write_csv(out / "runtime.csv", full)
        draw(table, self.step, self.dim, f"{self.command} · {self.place()}", out / "runtime.png")

    def show(self) -> None:
        """Print the tables, the fastest first."""
        for (task, points), group in self.table().groupby(["task", "points"], sort=False):
            titles = {"batch": f"batch of {self.batch} × {points} points", LOSS_TASK: LOSS_TASK}
            print(f"\n{titles.get(str(task), f'{task}, {points} points')}")
            for row in group.sort_values("median_ms").to_dict("records"):
                ratios = ""
                if row["contender"].startswith("corel") and not math.isnan(row["faster_than_best_peer"]):
                    ratios = f"   {row['faster_than_best_peer']:.3g} × {row['best_peer']}"
                    if not math.isnan(row["faster_than_ripser"]) and not row["best_peer"].startswith("ripser"):
                        ratios += f", {row['faster_than_ripser']:.3g} × ripser"
                quartiles = f"[{row['lower_quartile_ms']:.4g}, {row['upper_quartile_ms']:.4g}]"
                print(f"  {row['median_ms']:10.4g} ms {quartiles:>20}  {row['contender']}{ratios}")
        print(f"\ntraining step of the autoencoder, batch 100: {1000 * self.step:.3g} ms")
        for n, mebibytes in self.memory.items():
            print(f"memory of merge_edges beyond the input, {n} points: {mebibytes:.1f} MiB")


# ---------------------------------------------------------------------------------------------------------------------
# The command


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Time 0-dimensional Rips persistence: corel in all its forms beside every peer that is installed.",
    )
    add = parser.add_argument
    add("--sizes", nargs="+", type=positive_int, metavar="N", help="points of a cloud (default: 32 64 128)")
    add("--dim", type=positive_int, default=10, help="dimension of the points (default: 10)")
    add("--repeats", type=positive_int, default=50, help="timed inputs per size (default: 50)")
    add("--batch", type=positive_int, default=16, help="clouds of a batch (default: 16)")
    add("--targets", action="store_true",
        help=f"the sizes of the project's own aims, in place of --sizes: {' '.join(map(str, TARGET_SIZES))}, and "
        f"{LARGEST} on a GPU")  # fmt: skip
    add("--device", default="auto", help="where corel runs: auto, cpu or cuda (default: auto)")
    add("--out", default="results", metavar="DIR", help="folder for runtime.csv and runtime.png (default: results)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.targets and options.sizes:
        parser.error("argument --targets: not allowed with argument --sizes")
    sizes = sorted(set(options.sizes or [32, 64, 128]))
    if sizes[0] < 2 or sizes[-1] > LARGEST:
        wrong = sizes[0] if sizes[0] < 2 else sizes[-1]
        parser.error(f"argument --sizes: got {wrong}; accepted are whole numbers from 2 to {LARGEST}")
    out = writable_directory(options.out, ["runtime.csv", "runtime.png"])
    device = resolve_device(options.device)
    if options.targets:
        sizes = TARGET_SIZES + ([LARGEST] if device.type == "cuda" else [])

    others, versions, notes = peers.installed()
    study = Study(device, options.dim, options.batch, provenance.command(PROGRAM, arguments), versions)
    expected: Expected = {}
    try:
        study.step = training_step(device)
        study.frames.append(summary(100, time_loss(options.repeats, device)))
        if sizes[0] > PROBE:
            time_size(PROBE, options.dim, options.batch, 1, device, others, expected)
        for n in tqdm(sizes, unit="size", file=sys.stderr):
            found, skipped = time_size(n, options.dim, options.batch, options.repeats, device, others, expected)
            notes += skipped
            study.frames.append(summary(n, found))
            if n > EVERYTHING:
                study.memory[n] = extra_memory(n, options.dim, device)
            study.write(out)  # a larger size may end the process
    except KeyboardInterrupt:
        if not study.frames:
            raise KeyboardInterrupt("nothing was measured yet") from None
        study.write(out)
        raise KeyboardInterrupt(f"what was measured is in {out / 'runtime.csv'}") from None
    study.show()
    print("\n".join(["", *notes, *targets(study.table(), study.memory, study.step, device)]))
    print(f"\n{study.place()}; medians [quartiles]; written: {out / 'runtime.csv'}, {out / 'runtime.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
