"""Running cells on workers: equal results, workers that die, clusters that go, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import cloudpickle
import dask
import pytest
from distributed import LocalCluster

import bench
from bench.engine import cluster
from bench.engine.cluster import Cluster, cluster_at, local_cluster

DEADLY = '''
import os
import signal
from pathlib import Path

from methods import OneClassMethod


class Deadly(OneClassMethod):
    """Ends the process that it runs in: for one class always, for another once."""

    name = "deadly"

    def fit(self, features):
        red, green, blue = features.mean(axis=(0, 2, 3))
        if red > 150:
            os._exit(3)
        once = Path(__file__).with_name("once")
        if green > 150 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self

    def score_samples(self, features):
        return features.mean(axis=(1, 2, 3))
'''


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """Address of a cluster that was started by hand, elsewhere: two workers, one thread each."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"allowed_failures": 0},
                silence_logs=logging.CRITICAL + 1,
            ) as workers,
        ):
            os.chdir(before)
            yield workers.scheduler_address
    finally:
        os.chdir(before)


@pytest.fixture
def small():
    """Make a cluster of threads in this process, by keywords of LocalCluster; returns it and its address."""
    made = []

    def make(**keywords):
        made.append(LocalCluster(processes=False, protocol="tcp", dashboard_address="127.0.0.1:0", **keywords))
        return made[-1], made[-1].scheduler_address

    yield make
    for one in made:
        one.close()


def wait_for_workers(engine: Cluster, count: int) -> None:
    """Wait until so many have started."""
    deadline = time.monotonic() + 160
    while engine.slots() < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait(engine: Cluster):
    """The next task that ends."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        engine.slots()
        if (ended := engine.wait()) is not None:
            return ended
    raise AssertionError("nothing ended")


def test_same_results_in_process_and_on_a_cluster(experiment, run_cells, scheduler, tmp_path, monkeypatch):
    """Paths are relative here, and the workers are in another folder."""
    monkeypatch.chdir(tmp_path)
    cells, datasets = experiment("learner.py", "mean_colour.py", runs=2)
    counts, order, here, _, _ = run_cells(cells, datasets, Path("here"))
    cells, datasets = experiment("learner.py", "mean_colour.py", runs=2)
    counts, order, there, failed, trained = run_cells(cells, datasets, Path("there"), scheduler=scheduler)
    assert counts == (12, 0), failed["error"].tolist()
    assert set(order) == {cell.key for cell in cells}
    same = [column for column in here if not column.endswith("seconds") and column != "finished"]
    assert there[same].equals(here[same])
    assert len(trained) == 1


def test_worker_that_dies_costs_a_retry_and_a_deadly_cell_itself_alone(
    experiment, run_cells, scheduler, method_file, tmp_path
):
    (tmp_path / "deadly.py").write_text(DEADLY)
    cells, datasets = experiment(str(tmp_path / "deadly.py"), method_file)
    counts, _, rows, failed, _ = run_cells(cells, datasets, tmp_path / "out", scheduler=scheduler)
    assert counts == (6, 1)
    assert (tmp_path / "once").exists()
    assert failed["error"].tolist() == [
        "DeadWorkerError: its worker process ended 3 times while it ran (out of memory?)"
    ]
    assert "'red'" in failed["cell"].iloc[0]
    (tmp_path / "deadly.py").write_text(DEADLY.replace("os._exit(3)", "pass"))
    cells, datasets = experiment(str(tmp_path / "deadly.py"), method_file)
    *_, here, _, _ = run_cells(cells, datasets, tmp_path / "here")
    assert rows["auc"].iloc[3:].tolist() == here["auc"].iloc[3:].tolist()
    assert rows["auc"].iloc[[0, 1]].tolist() == here["auc"].iloc[[0, 1]].tolist()


def test_local_workers(tmp_path, capfd, monkeypatch):
    """Processes in the environment of this one, started again; an exception does not wait for what they are at."""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    once = str(tmp_path / "once")
    dies_once = f"__import__('os').path.exists({once!r}) or [open({once!r}, 'w'), __import__('os')._exit(3)]"
    with pytest.raises(KeyboardInterrupt), local_cluster(2, "cpu") as engine:  # noqa: PT012
        engine.start(eval, dies_once)
        assert wait(engine)[1] is True
        engine.start(os.getenv, "MALLOC_TRIM_THRESHOLD_")
        assert wait(engine)[1] is None
        wait_for_workers(engine, 2)
        for _ in range(2):
            engine.start(eval, "(__import__('time').sleep(0.5), __import__('os').getpid())[1]")
        assert len({wait(engine)[1] for _ in range(2)} | {os.getpid()}) == 3
        engine.start(time.sleep, 1000)
        started = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - started < 60
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_ends_while_it_starts_is_replaced(capfd, monkeypatch):
    monkeypatch.setattr(cluster, "REFILL_SECONDS", 0.3)
    others = multiprocessing.active_children()
    with local_cluster(1, "cpu") as engine:
        deadline = time.monotonic() + 60
        while not (started := set(multiprocessing.active_children()) - set(others)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started.pop().kill()
        assert engine.slots() == 0
        wait_for_workers(engine, 1)
        engine.start(os.getenv, "PATH")
        assert wait(engine)[1] == os.environ["PATH"]
        assert engine.slots() == 1
    assert capfd.readouterr() == ("", "")


PROGRAM = """
import os, sys, time
from bench.engine.cluster import local_cluster
if __name__ == "__main__":
    with local_cluster(2, "cpu") as engine:
        while engine.slots() < int(sys.argv[1]):
            time.sleep(0.05)
        engine.start(time.sleep, 1000)
        print("ready", flush=True)
        time.sleep(1000)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_end_with_a_driver_that_is_killed(tmp_path, workers):
    """With ``workers`` of them started; the rest are just starting."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program), str(workers)],
        env={**os.environ, "PYTHONPATH": str(Path(bench.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert select.select([process.stdout], [], [], 160)[0], "it is not ready"
        assert process.stdout.readline() == b"ready\n"
    finally:
        process.kill()
    process.communicate(timeout=60)  # the pipe is closed when the last of them has gone


def test_workers_do_not_hear_ctrl_c():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    code = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    with cluster._signals_blocked():
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    assert "SIGINT" in output
    assert "SIGHUP" in output
    assert "SIGTERM" not in output
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_scheduler_that_goes_is_one_line(small):
    workers, address = small(n_workers=1)
    with cluster_at(address, "cpu") as engine:
        engine.start(time.sleep, 0.3)
        workers.close()
        with pytest.raises(
            ConnectionError, match=rf"the Dask scheduler at '{address}' has gone; finished cells are kept"
        ):
            wait(engine)
        with pytest.raises(ConnectionError):
            engine.start(abs, -1)


def test_a_cluster_without_workers_does_not_hold_the_run(small, monkeypatch):
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 0.3)
    _, address = small(n_workers=0)
    with pytest.raises(TimeoutError, match="no worker for 0 s"), cluster_at(address, "auto"):
        pass
    with (
        cluster_at(address, "cpu") as engine,
        pytest.raises(TimeoutError, match=rf"no worker for 0 s: the cluster at '{address}' has none"),
    ):
        wait(engine)


def test_workers_with_and_without_gpus(small):
    _, plain = small(n_workers=2)
    with cluster_at(plain, "auto") as engine:
        assert (engine.device, engine.slots()) == ("cpu", 2)
    with (
        cluster_at(plain, "cuda") as engine,
        pytest.raises(ValueError, match=r"device: got 'cuda', but no worker of the cluster .* --resources \"GPU=1\""),
    ):
        engine.slots()
    _, with_gpu = small(n_workers=1, resources={"GPU": 1})
    with cluster_at(with_gpu, "auto") as engine:
        assert (engine.device, engine.slots()) == ("cuda", 1)
        engine.start(abs, -7)
        assert wait(engine)[1] == 7


@pytest.mark.parametrize("lacks", ["package", "version"])
def test_a_worker_that_cannot_run_cells_is_one_line(small, monkeypatch, lacks):
    _, address = small(n_workers=1)
    with cluster_at(address, "cpu") as engine:
        if lacks == "package":  # a worker here has all that this process has, but for a module that goes in between
            module = types.ModuleType("corel_test_gone")
            exec("def double(x):\n    return 2 * x", vars(module))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            packed = pickle.dumps(module.double)
            monkeypatch.delitem(sys.modules, module.__name__)
            engine.start(pickle.loads, packed)
            reason = r"ModuleNotFoundError: No module named 'corel_test_gone'"
        else:
            engine._source = ("0.0.7", "")
            engine.start(abs, -1)
            reason = r"ImportError: it has corel .*, and the run corel 0\.0\.7"
        with pytest.raises(
            ValueError, match=rf"--scheduler: a worker of .* cannot run cells \({reason}.*\); install corel"
        ):
            wait(engine)


def test_a_scheduler_passes_tasks_on_without_this_package(small):
    """What it unpickles names nothing of ours."""
    _, address = small(n_workers=1)
    sent = []
    with cluster_at(address, "cpu") as engine:
        submit = engine._client.submit
        engine._client.submit = lambda *arguments, **keywords: sent.append(arguments) or submit(*arguments, **keywords)
        engine.start(abs, -1)
        assert wait(engine)[1] == 1
    ((function, argument),) = sent
    assert isinstance(argument, bytes)
    program = "import sys, cloudpickle\nsys.modules['bench'] = None\ncloudpickle.loads(sys.stdin.buffer.read())\n"
    done = subprocess.run([sys.executable, "-c", program], input=cloudpickle.dumps(function), timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "tcp://127.0.0.1:notaport"])
def test_no_scheduler_there(address):
    with (
        pytest.raises(ValueError, match=rf"--scheduler: no Dask scheduler answers at '{address}' \("),
        cluster_at(address, "cpu"),
    ):
        pass


def test_something_else_than_a_scheduler_does_not_hold_the_run(monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.3)

    def use(address: str) -> None:
        with pytest.raises(ValueError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:\d+' \("):
            cluster_at(address, "cpu").__enter__()

    async def served() -> float:
        async def silent(reader, writer):
            await reader.read()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        started = time.monotonic()
        await asyncio.to_thread(use, f"tcp://127.0.0.1:{port}")
        server.close()
        return time.monotonic() - started

    assert asyncio.run(served()) < 10
