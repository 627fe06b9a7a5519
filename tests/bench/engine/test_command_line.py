"""How a command ends: by an error, by a signal, or because nobody reads what it says."""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys

import pytest
import torch

from bench.engine import command_line
from bench.engine.command_line import run, run_count, thread_count, whole_number, writable_directory


def ends(error: BaseException | None = None, say: str = ""):
    """A command that prints and ends so."""

    def main(arguments):
        print(say)
        if error is not None:
            raise error
        return 0

    return main


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a\nb"), "x: error: a b"),
        (ValueError("\x1b[2J\u2028"), "x: error: \\x1b[2J"),
        (MemoryError(), "x: error: out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "x: error: out of memory (CUDA out of memory. Tried)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "x: error: out of memory (DefaultCPUAllocator"),
        (FloatingPointError("the loss is nan"), "x: error: the loss is nan"),
    ],
)
def test_what_a_user_can_cause_is_one_line(error, message, capsys):
    assert run("x", ends(error)) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_mistake_of_ours_is_not_hidden():
    with pytest.raises(RuntimeError, match="shapes"):
        run("x", ends(RuntimeError("shapes do not match")))
    with pytest.raises(ZeroDivisionError):
        run("x", ends(ZeroDivisionError()))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_interrupt(name, capsys):
    number = getattr(signal, name)
    before = signal.getsignal(number)

    def main(arguments):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("3 of 4 are kept") from None
        return 0

    assert run("x", main) == 128 + number
    how = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert capsys.readouterr().err == f"\nx: {how}; 3 of 4 are kept\n"
    assert signal.getsignal(number) is before


def test_a_closed_terminal_does_not_change_the_status():
    def main(arguments):
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            raise OSError("cannot write to the terminal")

    assert run("x", main) == 129


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run("x", lambda arguments: os.kill(os.getpid(), signal.SIGHUP) or 0) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_is_claimed_of_what_is_kept(capsys):
    assert run("x", ends(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\nx: interrupted\n"


@pytest.mark.parametrize("module", ["table1", "runtime", "verify_pairings", "publish", "verify", "scale"])
def test_interrupt_while_libraries_are_imported(module, tmp_path):
    arguments = {"publish": [str(tmp_path), "--to", str(tmp_path / "published")]}
    (tmp_path / "numpy.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    raise ImportError\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *arguments.get(module, ())],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"\nbench.{module}: interrupted\n")


def test_importing_the_package_leaves_signals_alone():
    code = "import signal, bench; raise SystemExit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_an_import_that_turns_the_interrupt_into_another_error(capsys):
    def main(arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("libraries do so") from None

    assert run("x", main) == 143
    assert capsys.readouterr().err == "\nx: stopped by SIGTERM\n"


PROGRAM = """
import os, signal, sys, time
from bench.engine.command_line import loading, run
def main(arguments):
BODY
    return 0
raise SystemExit(run('x', main))
"""


def program(tmp_path, body: str, shell: str = "", **keywords):
    """Run a command with such a body, in a shell with such redirections."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("BODY", "\n".join(f"    {line}" for line in body.splitlines())))
    return subprocess.run(
        f"exec '{sys.executable}' '{path}' {shell}",
        shell=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.dirname(command_line.__file__)))},
        timeout=60,
        **keywords,
    )


@pytest.mark.parametrize(("pause", "kept"), [(0.0, True), (1.2, False)])
def test_a_second_signal_does_not_wait_for_what_is_tidied_up(tmp_path, pause, kept):
    """But one stop that is sent twice, as terminals do, is one stop."""
    body = f"""
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    time.sleep({pause})
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    print("tidied up", flush=True)
"""
    done = program(tmp_path, body, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "\nx: interrupted\n"
    assert (done.stdout == "tidied up\n") is kept


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_libraries_are_imported_ends_at_once(tmp_path, name):
    body = f"""
with loading():
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(10)
    except BaseException:
        pass
print("imported")
"""
    done = program(tmp_path, body, capture_output=True, text=True)
    how = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert (done.returncode, done.stdout, done.stderr) == (128 + getattr(signal, name), "", f"\nx: {how}\n")


def test_after_loading_a_signal_is_an_interrupt_again(capsys):
    def main(arguments):
        with command_line.loading():
            pass
        os.kill(os.getpid(), signal.SIGINT)

    assert run("x", main) == 130


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_missed_by_nobody(tmp_path, closed):
    """And what is opened next does not receive what is written to them."""
    body = f"""
with open({str(tmp_path / "file")!r}, "w") as file:
    print("to standard output", flush=True)
    print("to standard error", file=sys.stderr, flush=True)
    os.system("echo from another process; echo and there >&2")
    file.write(f"{{sys.stdin.read() if sys.stdin else ''}}of its own")
"""
    assert program(tmp_path, body, closed, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    assert (tmp_path / "file").read_text() == "of its own"


def test_output_that_nobody_reads_ends_quietly(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\nfrom bench.engine.command_line import run\n"
        "def main(arguments):\n    sys.stdin.read()\n    print('x' * 100_000)\n    return 0\n"
        "raise SystemExit(run('x', main))\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(command_line.__file__)))
    with open(tmp_path / "error", "wb") as error:  # a pipe would be read to its end without a limit of time
        process = subprocess.Popen(
            [sys.executable, str(program)],
            env={**os.environ, "PYTHONPATH": root},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=error,
        )
    process.stdout.close()
    process.stdin.close()
    assert process.wait(timeout=60) == 141
    assert (tmp_path / "error").read_bytes() == b""


def test_output_without_a_dash_gets_a_question_mark(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert run("x", ends(say="a – b")) == 0
    assert output.buffer.getvalue() == b"a ? b\n"


def test_numbers():
    assert whole_number("-3") == -3
    assert thread_count("1024") == 1024
    for parse, text in (
        (whole_number, "x"),
        (thread_count, "0"),
        (thread_count, "99999999999"),
        (thread_count, "x"),
        (run_count, "0"),
        (run_count, "9" * 400),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=f"got '{text}'; accepted are whole numbers"):
            parse(text)


def test_folder_for_results(tmp_path):
    assert writable_directory(tmp_path / "new", ["a.csv"]).is_dir()
    (tmp_path / "new" / "a.csv").mkdir()
    with pytest.raises(ValueError, match=r"--out: cannot write '.*a\.csv': it is a folder"):
        writable_directory(tmp_path / "new", ["a.csv"])
    with pytest.raises(ValueError, match="--out: got ''"):
        writable_directory("")
