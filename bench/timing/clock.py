"""How contenders are timed: in one process, in turns of random order, each turn on a new input that all are given."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

import corel
from bench.timing.contenders import Contender

#: Seconds that the repeats of one contender at one size may take together; at least three are made.
TIME_LIMIT = 8.0
#: Warm-up: a call shorter than this is timed after calls on another input that take this long together.
LOOP = 0.002
#: Before a larger size, a contender that was not timed yet is called at this one, and its time extrapolated.
PROBE = 256

#: Draws an input of a size.
DrawInput = Callable[[np.random.Generator, int], np.ndarray]


@dataclass
class Clock:
    """Times contenders, and remembers how long they took.

    Parameters
    ----------
    device
        Where ours run; a call ends when all its work there is done.
    repeats
        Timed inputs per size.
    limit
        A contender is left out where one call is expected to take more seconds.
    notes
        A line for each contender that was left out.
    """

    device: torch.device
    repeats: int
    limit: float
    notes: list[str] = field(default_factory=list)
    #: size and seconds of the last calls of each contender, by task and name
    known: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def time(self, contenders: Iterable[Contender], draw: DrawInput, size: int) -> list[Contender]:
        """Time all contenders on inputs of one size; returns those that were, with their seconds.

        A short call is timed after calls of the same contender on another input, because otherwise the caches of the
        processor hold the other contenders' data. A peer that fails is left out.
        """
        generator = np.random.default_rng(size)
        other = draw(generator, size)
        running = []
        for contender in contenders:
            expected = self._expected(contender, draw, size)
            if expected > self.limit:
                self._leave_out(contender, size, f"about {expected:.0f} s a call")
            elif not math.isnan(expected) and not math.isnan(self._timed(contender, other, size)):
                running.append(contender)
        for turn in range(self.repeats):
            points = draw(generator, size)
            for index in generator.permutation(len(running)):
                contender = running[index]
                if turn < 3 or sum(contender.seconds) < TIME_LIMIT:
                    spent = 0.0
                    while turn > 0 and spent + contender.seconds[-1] < LOOP:
                        spent += self._timed(contender, other, size)
                    contender.seconds.append(self._timed(contender, points, size))
            running = [contender for contender in running if not math.isnan(contender.seconds[-1])]
            other = points
        for contender in running:
            self.known[contender.task, contender.name] = size, float(np.median(contender.seconds))
        return running

    def _expected(self, contender: Contender, draw: DrawInput, size: int) -> float:
        """Seconds of a call at ``size``, by growth with n² from the largest size known; NaN for one that fails.

        If that is above the limit, sizes 4 times as large are tried one after the other, while a try itself is expected
        to stay below the limit: searches in a k-d tree grow more slowly than n².
        """
        n, seconds = self.known.get((contender.task, contender.name), (0, 0.0))
        if n == 0 and size > PROBE:
            n, seconds = self._probe(contender, draw, PROBE)
        while n > 0 and seconds * (size / n) ** 2 > self.limit >= 16 * seconds and 4 * n < size:
            n, seconds = self._probe(contender, draw, 4 * n)
        return seconds * (size / n) ** 2 if n > 0 else 0.0

    def _probe(self, contender: Contender, draw: DrawInput, n: int) -> tuple[int, float]:
        points = draw(np.random.default_rng(n), n)
        self._timed(contender, points, n)  # loads or compiles its code
        self.known[contender.task, contender.name] = n, self._timed(contender, points, n)
        return self.known[contender.task, contender.name]

    def _timed(self, contender: Contender, points: np.ndarray, size: int) -> float:
        """Seconds of one call; NaN, with a note, where a peer fails."""
        given = contender.convert(points)
        self._wait()
        started = time.perf_counter()
        try:
            contender.call(given)
        except Exception as error:  # whatever a foreign library raises must not end the study
            if contender.own:
                raise
            self._leave_out(contender, size, f"it failed: {error}")
            return math.nan
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _leave_out(self, contender: Contender, size: int, why: str) -> None:
        line = f"{contender.task}, {size} points: {contender.name} left out, {' '.join(why.split())}"
        if line not in self.notes:
            self.notes.append(line)


# Linux records the peak memory of a process (VmHWM), and resets it on request; small clouds first load all code.
_MEMORY = """
import sys
from pathlib import Path
import torch, corel

def kibibytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key + ":")).split()[1])

n, dim, p = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
for size in (256, 6_000, 10_000):  # each size class has kernels of its own
    corel.merge_edges(torch.randn(size, dim), p)
points = torch.randn(n, dim, generator=torch.Generator().manual_seed(n))
Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
corel.merge_edges(points, p)
print(kibibytes("VmHWM") - before)
"""


def extra_memory(n: int, dim: int, p: float, device: torch.device) -> float:
    """MiB that ``merge_edges`` of ``n`` Gaussian points in float32 takes beyond the input at its peak, result included.

    On the CPU in a process of its own, and on Linux alone; NaN elsewhere.
    """
    if device.type == "cuda":
        points = torch.randn(n, dim, device=device)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        corel.merge_edges(points, p)
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    command = [sys.executable, "-c", _MEMORY, str(n), str(dim), str(p)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) / 1024 if done.returncode == 0 else math.nan
