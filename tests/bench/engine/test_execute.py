"""Running cells in this process: their order, what they share, and what is kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.engine import execute, tasks
from bench.engine.execute import Options
from bench.engine.store import STORE_FILE, Store


def test_cells_end_in_the_order_of_the_plan_and_are_told(experiment, run_cells, tmp_path):
    cells, datasets = experiment(runs=2)
    counts, order, rows, failed, _ = run_cells(cells, datasets, tmp_path / "out")
    assert counts == (12, 0)
    assert order == [cell.key for cell in cells]
    assert rows["auc"].notna().all()
    assert failed.empty
    assert rows["device"].str.startswith("cpu (").all()
    assert run_cells(cells, datasets, tmp_path / "out")[:2] == ((0, 0), [])


def test_what_cells_share_is_learned_once_and_its_cost_stays_with_it(experiment, run_cells, tmp_path):
    cells, datasets = experiment()
    *_, first, _, trained = run_cells(cells, datasets, tmp_path / "out")
    (path,) = [path for path in (tmp_path / "out/cache/auxiliary").iterdir() if path.suffix != ".json"]
    beside = path.with_name(f"{path.name}.json")
    took = json.loads(beside.read_text())
    assert {"seconds", "device", "threads", "versions", "git_commit"} == set(took)
    assert trained["seconds"].tolist() == [took["seconds"]]
    beside.write_text(json.dumps({**took, "seconds": 1234.5, "device": "cuda (of another day)", "threads": 7}))
    for path in (tmp_path / "out/cache/features").iterdir():
        path.unlink()
    (tmp_path / "out/cells.sqlite").unlink()
    *_, again, _, trained = run_cells(cells, datasets, tmp_path / "out")
    assert trained[["seconds", "device", "threads"]].values.tolist() == [[1234.5, "cuda (of another day)", 7]]
    assert len((tmp_path / "learner.log").read_text().splitlines()) == 1
    assert again["aucs"].tolist() == first["aucs"].tolist()


@pytest.mark.parametrize("damage", ["", "[]", '{"seconds": 1}', None])
def test_a_training_of_which_nothing_is_known_gets_no_row(experiment, run_cells, tmp_path, damage):
    cells, datasets = experiment()
    run_cells(cells, datasets, tmp_path / "out")
    (beside,) = (tmp_path / "out/cache/auxiliary").glob("*.json")
    beside.unlink() if damage is None else beside.write_text(damage)
    (tmp_path / "out/cells.sqlite").unlink()
    counts, _, _, _, trained = run_cells(cells, datasets, tmp_path / "out")
    assert counts == (6, 0)
    assert trained.empty


def test_failed_preparation_costs_those_that_need_it(experiment, run_cells, tmp_path):
    (tmp_path / "learner.log").mkdir()
    cells, datasets = experiment()
    counts, order, rows, failed, _ = run_cells(cells, datasets, tmp_path / "out")
    assert counts == (6, 3)
    assert order == [cell.key for cell in cells]
    assert failed["error"].unique().tolist() == [
        f"IsADirectoryError: [Errno 21] Is a directory: '{tmp_path}/learner.log'"
    ]
    assert rows["auc"].notna().tolist() == [False] * 3 + [True] * 3


class Workers:
    """What the plan asks of a cluster."""

    parallel = True
    device = "cpu"


def test_trainings_come_first_and_each_kind_once_at_a_time(experiment, method_file, tmp_path):
    learner = str(tmp_path / "learner.py")
    cells, datasets = experiment(method_file, f"sklearn:OneClassSVM@{learner}", learner)
    plain, detector, alone = groups = execute._groups(cells, datasets, Options(tmp_path), Workers())
    assert detector.training == alone.training is not None
    running = []
    for expected in (plain, detector):
        running.append(execute._next(groups, running)[0])
        assert running[-1] is expected
    assert execute._next(groups, running) is None
    plain.prepared = tasks.prepare(plain.preparation)
    assert execute._next(groups, [detector])[0] == cells[0]
    assert execute._next(groups, [])[0] is alone


def test_a_finished_cell_is_kept_when_the_cluster_goes(experiment, run_cells, tmp_path, monkeypatch):
    class Lost(execute._InProcess):
        ended = 0

        def slots(self):
            if self.ended == 3:  # the training, then two cells
                raise ConnectionError("the scheduler has gone")
            return 1

        def wait(self):
            self.ended += 1
            return super().wait()

    monkeypatch.setattr(execute, "_InProcess", Lost)
    cells, datasets = experiment()
    with pytest.raises(ConnectionError, match="the scheduler has gone"):
        run_cells(cells, datasets, tmp_path / "out")
    with Store(tmp_path / "out" / STORE_FILE) as store:
        assert set(store.finished(cell.key for cell in cells)["key"]) == {cell.key for cell in cells[:2]}


def test_paths_are_absolute_before_they_are_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert execute._absolute("own/m.py:Mine") == f"{tmp_path}/own/m.py:Mine"
    assert execute._absolute("m.py") == f"{tmp_path}/m.py"
    assert execute._absolute(f"{tmp_path}/m.py:Mine") == f"{tmp_path}/m.py:Mine"
    assert execute._absolute("pyod:ECOD@own/m.py:Mine") == f"pyod:ECOD@{tmp_path}/own/m.py:Mine"
    for name in ("corel", "sklearn:OneClassSVM", "sklearn:OneClassSVM@corel"):
        assert execute._absolute(name) == name


def test_a_device_that_is_not_there(experiment, run_cells, tmp_path):
    cells, datasets = experiment()
    with pytest.raises(ValueError, match="device: got 'cuda:99'"):
        run_cells(cells, datasets, tmp_path / "out", device="cuda:99")


def test_what_a_command_needs_before_its_arguments_are_read_is_light():
    code = (
        "import sys, bench.engine.execute, bench.engine.cores, bench.engine.command_line\n"
        "raise SystemExit(bool({'torch', 'numpy', 'pandas', 'distributed', 'dask'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
