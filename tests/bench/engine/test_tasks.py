"""What one process computes: arrays as files, one cell, and what a method may return."""

from __future__ import annotations

import dataclasses
import errno
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from bench.engine import protocol, tasks
from bench.engine.cells import Cell, method_spec
from corel.checkpoint import Checkpoint

METHOD = """
import numpy as np
import torch
from methods import OneClassMethod

class Odd(OneClassMethod):
    name = "odd"

    def fit(self, features):
        if self.checkpoint_dir is not None:
            self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
            (self.checkpoint_dir / "state").touch()
        FIT
        return self

    def score_samples(self, features):
        return features.mean(axis=(1, 2, 3))

    def score_variants(self, features):
        score = self.score_samples(features)
        return VARIANTS
"""


@pytest.fixture
def task(tmp_path):
    """Make the task of one cell of a method with given lines in ``fit`` and given score variants."""

    def make(fit: str = "pass", variants: str = "{'': score}", test_images: int | None = None) -> tasks.Task:
        path = tmp_path / "odd.py"
        path.write_text(METHOD.replace("FIT", fit).replace("VARIANTS", variants))
        images = np.arange(6 * 3 * 32 * 32, dtype=np.float32).reshape(6, 3, 32, 32)
        labels = np.array([0, 0, 0, 1, 1, 1])
        files = {name: tasks.as_file(array, tmp_path / f"{name}.npy") for name, array in (("x", images), ("y", labels))}
        spec = method_spec(f"{path}:Odd", "quick")
        cell = Cell("digits", "f" * 64, spec, None, None, 2, 0, 1, "1", 0, test_images=test_images)
        conditions = tasks.Conditions(tmp_path, "cpu", 1, progress=False)
        return tasks.Task(cell, spec, files["x"], files["y"], files["x"], files["y"], conditions)

    return make


def checkpoints(made: tasks.Task) -> Path:
    return made.conditions.cache / "checkpoints" / made.cell.key


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.arange(240, dtype=np.int16).reshape(20, 3, 4))
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("part", [slice(None), slice(5, 12), slice(0, 1), slice(19, 20)])
def test_mapped_array_is_not_copied(mapped, tmp_path, part):
    file = tasks.as_file(mapped[part], tmp_path / "copy.npy")
    assert not (tmp_path / "copy.npy").exists()
    np.testing.assert_array_equal(file.open(), mapped[part])


def test_slice_of_a_slice(mapped, tmp_path):
    file = tasks.as_file(mapped[4:][3:9], tmp_path / "copy.npy")
    np.testing.assert_array_equal(file.open(), mapped[7:13])


@pytest.mark.parametrize("make", [lambda a: np.array(a), lambda a: a[:, :, 1], lambda a: a[::2], lambda a: a + 1])
def test_other_arrays_are_written(mapped, tmp_path, make):
    array = make(mapped)
    file = tasks.as_file(array, tmp_path / "copy.npy")
    assert (tmp_path / "copy.npy").exists()
    np.testing.assert_array_equal(file.open(), array)
    assert file.open().dtype == array.dtype


def test_number_of_threads_is_set_and_set_back():
    before = torch.get_num_threads()
    with tasks._threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_family_of_scores_counts_its_best():
    in_class = np.array([True, True, False, False])
    bad, good = np.array([0.0, 1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0, 0.0])
    assert tasks._best_auc(in_class, bad) == 0.0
    assert tasks._best_auc(in_class, np.stack([bad, good])) == 0.75


def test_outcome_says_where_it_was_computed(task):
    outcome = tasks.run_task(task())
    assert (outcome.error, outcome.aucs) == ("", {"": 1.0})
    assert outcome.device.startswith("cpu (")
    assert {"python", "torch"} <= set(outcome.versions)


def test_task_leaves_nothing_of_its_training(task):
    made = task()
    assert tasks.run_task(made).error == ""
    assert list(checkpoints(made).parent.iterdir()) == []


def test_state_of_a_failed_training_stays(task):
    made = task("raise ValueError('no')")
    assert tasks.run_task(made).error == "ValueError: no"
    assert [path.name for path in checkpoints(made).parent.iterdir()] == [made.cell.key]


def pretend_that_it_took(path: Path, seconds: float) -> None:
    torch.save({**torch.load(path, weights_only=True), "seconds": seconds}, path)


def test_seconds_of_a_cell_are_those_of_all_its_processes(task):
    made = task(
        "from corel.checkpoint import Checkpoint; checkpoint = Checkpoint(self.checkpoint_dir / 'state.pt'); "
        "epoch, _ = checkpoint.load(); checkpoint.save(epoch + 1); assert epoch, 'killed'"
    )
    assert "killed" in tasks.run_task(made).error
    pretend_that_it_took(checkpoints(made) / "state.pt", 1000.0)
    outcome = tasks.run_task(made)
    assert outcome.error == ""
    assert 1000 < outcome.fit_seconds < 1500
    assert outcome.score_seconds < 500


def test_seconds_of_a_training_on_auxiliary_images_are_those_of_all_its_processes(tmp_path):
    path = tmp_path / "trained"
    state = path.with_name("trained.checkpoint")

    class Learner:
        def fit_auxiliary(self, images, *, path):
            checkpoint = Checkpoint(state)
            if checkpoint.load()[0] == 0:
                checkpoint.save(1)
                raise KeyboardInterrupt
            path.touch()

    conditions = tasks.Conditions(tmp_path, "cpu", 1, progress=False)
    with pytest.raises(KeyboardInterrupt):
        tasks._learn(Learner(), np.zeros(1), path, conditions)
    pretend_that_it_took(state, 1000.0)
    tasks._learn(Learner(), np.zeros(1), path, conditions)
    assert 1000 < tasks._training(path)["seconds"] < 1500


def test_cell_that_another_run_is_at_does_not_touch_its_state(task):
    made = task("assert self.checkpoint_dir is None")
    folder = checkpoints(made)
    folder.mkdir(parents=True)
    (folder / "state").write_text("of the other run")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        outcome = tasks.run_task(made)
    assert (outcome.error, outcome.aucs) == ("", {"": 1.0})
    assert (folder / "state").read_text() == "of the other run"


def test_lock_is_held_by_one_at_a_time_and_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "a.lock"
    with tasks._locked(path, wait=True) as first, tasks._locked(path, wait=False) as second:
        assert (first, second) == (True, False)
    assert list(path.parent.iterdir()) == []
    with tasks._locked(path, wait=False) as again:
        assert again


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_systems_without_locks(task, tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor, how):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    outcome = tasks.run_task(task())
    assert (outcome.error, outcome.aucs) == ("", {"": 1.0})


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), tasks._locked(tmp_path / "file" / "a.lock", wait=False):
        pass


@pytest.mark.parametrize("fit", ["raise SystemExit(7)", "import sys; sys.exit(7)"])
def test_method_that_ends_the_program_costs_its_cell(task, fit):
    assert tasks.run_task(task(fit)).error == "SystemExit: 7"


def test_only_the_chosen_test_images_are_scored(task, tmp_path):
    seen = tmp_path / "seen.npy"
    made = task(variants=f"(np.save({str(seen)!r}, features), {{'': score}})[1]", test_images=4)
    labels = made.test_labels.open()
    subset = protocol.test_subset(labels, 4, dataset="digits", base_seed=0)
    assert len(subset) == 4
    assert (np.diff(subset) > 0).all()
    assert np.bincount(labels[subset]).tolist() == [2, 2]
    assert tasks.run_task(made).aucs == {"": 1.0}
    np.testing.assert_array_equal(np.load(seen), made.test.open()[subset])
    assert tasks.run_task(task(variants="{'': np.arange(6.0)}", test_images=4)).error == (
        "ValueError: scores: the method returned shape (6,); accepted are (4,), one score an image, and (k, 4), a "
        "family of k scores, by the name 'oracle'"
    )


@pytest.mark.parametrize(
    "variants",
    [
        "{'': list(score)}",
        "{'': tuple(score.tolist())}",
        "{'': torch.tensor(score)}",
        "{'': torch.tensor(score, requires_grad=True)}",
        "{'': torch.tensor(score).bfloat16()}",
        "{'': (score * 100).astype(int)}",
        "{'oracle': np.stack([score, -score])}",
        "{'': [torch.tensor(x) for x in score]}",
    ],
)
def test_scores_in_another_container_are_accepted(task, variants):
    outcome = tasks.run_task(task(variants=variants))
    assert (outcome.error, list(outcome.aucs.values())) == ("", [1.0])


@pytest.mark.parametrize("name", ["", "best"])
def test_the_best_of_a_family_is_called_an_oracle(task, name):
    """Of 500 scores that are noise, the best by test AUC is far above chance."""
    outcome = tasks.run_task(task(variants=f"{{{name!r}: np.random.normal(size=(500, len(score)))}}"))
    assert "returned a family of scores, shape (500, 6), which is accepted by the name 'oracle' alone" in outcome.error


@pytest.mark.parametrize(
    ("variants", "returned"),
    [
        ("{'': None}", "NoneType"),
        ("{'': score[:, None]}", r"shape \(6, 1\)"),
        ("{'': torch.tensor(score)[:, None]}", r"shape \(6, 1\)"),
        ("{'': score[:5]}", r"shape \(5,\)"),
        ("{'': 0.5}", r"shape \(\)"),
        ("{'': []}", r"shape \(0,\)"),
        ("{'': np.empty((0, 6))}", r"shape \(0, 6\)"),
        ("{'': score.astype(str)}", "an array of dtype <U"),
        ("{'': score + 1j}", "an array of dtype complex"),
        ("{'': [[1.0], [2.0, 3.0]]}", "list"),
        ("{'': 'good'}", "str"),
        ("{'': score, 'b': None}", "NoneType"),
    ],
)
def test_scores_that_are_none_cost_their_cell_and_are_named(task, variants, returned):
    error = tasks.run_task(task(variants=variants)).error
    assert re.match(rf"(TypeError|ValueError): scores( 'b')?: the method returned {returned}.*; accepted are ", error)


@pytest.mark.parametrize("variants", ["{}", "{1: score}", "score", "None", "{'a': score, None: score}"])
def test_variants_that_are_no_scores_by_name_cost_their_cell(task, variants):
    error = tasks.run_task(task(variants=variants)).error
    assert error.startswith("TypeError: score_variants: the method returned ")


@pytest.mark.parametrize(("given", "kept"), [("None", None), ("7", 7), ("np.int64(7)", 7)])
def test_parameters_are_kept(task, given, kept):
    outcome = tasks.run_task(task(fit=f"self.parameters = lambda: {given}"))
    assert (outcome.error, outcome.parameters) == ("", kept)


@pytest.mark.parametrize("given", ["1.5", "True", "'7'"])
def test_parameters_that_are_no_number_cost_their_cell(task, given):
    error = tasks.run_task(task(fit=f"self.parameters = lambda: {given}")).error
    assert re.fullmatch(r"TypeError: parameters: the method returned .*; accepted are whole numbers and None", error)


@pytest.mark.parametrize("content", [b"", b"x" * 400, None])
def test_damaged_features_are_no_features(tmp_path, content):
    path = tmp_path / "features.npy"
    assert tasks._kept_features(path, 4) is None
    np.save(path, np.ones((4, 30)))
    assert tasks._kept_features(path, 4).shape == (4, 30)
    assert tasks._kept_features(path, 5) is None
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    assert tasks._kept_features(path, 4) is None


@pytest.mark.parametrize(
    ("returned", "message"),
    [("None", "prepare: the method returned NoneType"), ("images[:2]", r"prepare: the method returned shape \(2,")],
)
def test_prepare_that_returns_no_features_is_named(task, returned, message):
    made = task(
        f"pass\n\n    def prepare(self, images):\n        return {returned}\n\n    def unused(self):\n        pass"
    )
    prepared = tasks.prepare(tasks.Preparation(made.cell, made.method, made.train, made.test, None, made.conditions))
    assert re.search(f"{message}.*; accepted are ", prepared.error)


@pytest.mark.parametrize(
    ("version", "commit", "refused"),
    [("", "", False), ("9.9", "", True), ("", "0" * 40, True)],
)
def test_a_worker_with_another_version_is_refused(version, commit, refused, monkeypatch):
    monkeypatch.setattr(tasks.provenance, "git_commit", lambda: "a" * 40 + "-dirty")
    own_version, own_commit = tasks.source()
    assert own_commit == "a" * 40
    expected = (version or own_version, commit or own_commit)
    if refused:
        with pytest.raises(ImportError, match=r"it has corel .*, and the run corel "):
            tasks.call(abs, -1, expected)
    else:
        assert tasks.call(abs, -1, expected) == 1
    assert tasks.call(abs, -1, None) == 1


def test_the_commit_of_an_installed_copy_is_not_known(monkeypatch):
    for unknown in ("", "version 0.1.0"):
        monkeypatch.setattr(tasks.provenance, "git_commit", lambda unknown=unknown: unknown)
        assert tasks.call(abs, -1, (tasks.source()[0], "a" * 40)) == 1


def test_method_leaves_the_process_as_it_found_it(task, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    made = task(
        "import os; os.chdir('elsewhere'); torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)"
    )
    source = tmp_path / "odd.py"
    source.write_text(source.read_text() + "\nimport os\nos.chdir('/')\ntorch.set_default_dtype(torch.float64)\n")
    outcome = tasks.run_task(dataclasses.replace(made, method=method_spec(made.method.name, "quick")))
    assert outcome.error == ""
    assert Path.cwd() == tmp_path
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
