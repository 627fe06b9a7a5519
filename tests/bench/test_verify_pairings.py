"""The check of pairings as a command: what it prints, and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from bench import verify_pairings
from bench.engine.command_line import run
from bench.timing import agreement
from bench.verify_pairings import main


def test_no_difference(capsys):
    assert main(["--clouds", "40", "--seed", "5", "--device", "cpu"]) == 0
    assert re.fullmatch(
        r"0 of 40 clouds differ on cpu from gudhi [\d.]+ and ripser [\d.]+ "
        r"\(8 with ties or duplicates, 0 of more than 1,024 points; seed 5\)\n",
        capsys.readouterr().out,
    )


def test_every_difference_is_counted_and_some_are_described(monkeypatch, capsys):
    edges = agreement.edges_on
    monkeypatch.setattr(agreement, "edges_on", lambda device: lambda x, p: edges(device)(x, p).flip(-1))
    assert main(["--clouds", "30", "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert re.search(
        r"^cloud \d+ \(\d+ points in R\^\d+, p = \w+, float\d\d, .*\): merge edges of a batch", out, re.MULTILINE
    )
    assert out.count("\ncloud ") < 10 < int(re.search(r"^(\d+) of 30 clouds differ", out, re.MULTILINE)[1])


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed on this platform")
def test_the_kernels_of_a_gpu_run_in_the_interpreter():
    # in a process of its own: Triton chooses the interpreter when it is imported
    command = [sys.executable, "-m", "bench.verify_pairings", "--device", "triton-interpreter", "--clouds", "4"]
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, env=kept, timeout=300)
    assert (done.returncode, done.stdout[:44]) == (0, "0 of 4 clouds differ on triton-interpreter f"), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--clouds", "0"], ["--clouds", "many"], ["--seed", "-1"], ["--nonsense"], ["--device", "tpu"]],
)
def test_bad_arguments_are_one_line_and_status_2(arguments, capsys):
    try:
        status = run("bench.verify_pairings", main, arguments)
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (2, 1)
    assert "bench.verify_pairings: error: " in err


def test_the_interpreter_is_among_the_devices_that_are_accepted(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "tpu"])
    assert "got 'tpu'; accepted are auto, cpu, cuda and cuda:N, and triton-interpreter" in capsys.readouterr().err


def test_interrupt_says_how_far_it_got(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(agreement, "differences", interrupted)
    assert run("bench.verify_pairings", main, ["--clouds", "5"]) == 130
    assert "bench.verify_pairings: interrupted; 0 of 0 clouds differ" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["gudhi", "ripser"])
def test_peer_that_is_not_installed(monkeypatch, capsys, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert run("bench.verify_pairings", main, ["--clouds", "1"]) == 2
    err = capsys.readouterr().err
    assert f"{verify_pairings.PROGRAM} needs {missing}: pip install 'corel[peers]'" in err
    assert err.count("\n") == 1
