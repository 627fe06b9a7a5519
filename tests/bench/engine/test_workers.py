"""Worker processes: what they do about signals, and when they end."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import time

import pytest

from bench.engine import workers
from bench.engine.workers import WorkerPool


def test_a_signal_is_held_back_until_the_end_of_the_block():
    came = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with workers._signals_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert came == []
        assert came == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_starts_with_ctrl_c_blocked():
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with workers._signals_held():
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    assert output == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_leave_ctrl_c_to_their_parent():
    with WorkerPool(1) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result(60) == signal.SIG_IGN
        assert pool.submit(signal.getsignal, signal.SIGTERM).result(60) == signal.SIG_DFL
        assert pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result(60) == set()


def test_an_exception_does_not_wait_for_the_workers():
    pool = WorkerPool(1)
    pool.submit(os.getpid).result(60)
    (process,) = pool._processes.values()
    started = time.monotonic()
    pool.submit(time.sleep, 100)
    pool.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert time.monotonic() - started < 50
    assert not process.is_alive()


def test_a_worker_that_does_not_start_is_no_closed_pipe_of_ours(monkeypatch):
    def refuse(*arguments):
        raise BrokenPipeError

    with WorkerPool(1) as pool:
        monkeypatch.setattr(concurrent.futures.ProcessPoolExecutor, "submit", refuse)
        with pytest.raises(concurrent.futures.BrokenExecutor, match="did not start"):
            pool.submit(os.getpid)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\nfrom bench.engine.workers import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(1) as pool:\n"
        "        pool.submit(os.getpid).result()\n"
        "        pool.submit(time.sleep, 100)\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(100)\n"
    )
    root = os.path.dirname(os.path.dirname(workers.__file__))
    process = subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate(timeout=50)  # the pipe is closed when the last of them has gone
