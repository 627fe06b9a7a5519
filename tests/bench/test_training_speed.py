"""The timing of training steps: what it keeps in memory, and how it ends."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from bench import training_speed
from bench.engine.command_line import run
from bench.training_speed import main


def test_every_step_is_timed_on_one_of_a_few_batches():
    seen = []
    images = torch.arange(3.0).reshape(3, 1)
    taken = training_speed._time(lambda x: seen.append(float(x)), images, 7, torch.device("cpu"))
    assert seen == [0, 1, 2, 0, 1, 2, 0]
    assert len(taken) == 7


def test_memory_does_not_grow_with_the_steps(monkeypatch, tmp_path, capsys):
    shapes = []

    def pretend(step, images, steps, device):
        shapes.append((tuple(images.shape), steps))
        return [0.5]

    monkeypatch.setattr(training_speed, "_time", pretend)
    assert run("bench.training_speed", main, ["--steps", "99999999999", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert set(shapes) == {((training_speed.DISTINCT, 100, 3, 32, 32), 99999999999)}
    assert pd.read_csv(tmp_path / "training_speed.csv")["median_ms"].tolist() == [500, 500, 500]


def test_interrupt_says_that_nothing_is_kept(monkeypatch, tmp_path, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_speed, "measure", interrupted)
    assert run("bench.training_speed", main, ["--device", "cpu", "--out", str(tmp_path)]) == 130
    assert "bench.training_speed: interrupted; nothing is kept" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--rounds", "x"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
