"""Training: the loss, the history, and going on after a kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from corel import Autoencoder, ConnectivityLoss, death_times, train_autoencoder, training

IMAGES = np.random.default_rng(0).integers(0, 256, (65, 3, 32, 32), dtype=np.uint8)
SMALL = {"epochs": 3, "batch_size": 20, "branches": 4, "branch_dim": 3, "progress": False, "device": "cpu"}


def weights(model: Autoencoder) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_history_has_a_row_per_iteration_without_the_partial_batch():
    model, history = train_autoencoder(IMAGES, **SMALL)
    assert list(history.columns) == [
        "epoch", "iteration", "reconstruction", "connectivity", "alpha", "epsilon", "beta", "seconds",
    ]  # fmt: skip
    assert history["epoch"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert history["iteration"].tolist() == list(range(1, 10))
    assert (history["alpha"] <= history["epsilon"]).all()
    assert (history["epsilon"] <= history["beta"]).all()
    assert not model.training


@pytest.mark.parametrize("eta", [2.0, 0.7])
def test_first_step_is_the_papers_loss(eta):
    _, history = train_autoencoder(IMAGES, **{**SMALL, "epochs": 1}, eta=eta, seed=3)
    torch.manual_seed(3)
    model = Autoencoder(4, 3)
    order = training._permutation(len(IMAGES), 3, 1)[:20]
    x = torch.from_numpy(IMAGES)[order].float() / 255
    reconstructed, z = model(x)
    expected = sum((x[i] - reconstructed[i]).abs().sum() for i in range(20)) / 20
    assert history["reconstruction"][0] == pytest.approx(expected.item(), rel=1e-5)
    assert history["connectivity"][0] == pytest.approx(ConnectivityLoss(eta, branches=4)(z).item(), rel=1e-5)
    deaths = torch.stack([death_times(branch) for branch in z.detach().split(3, dim=1)])
    spread = [deaths.amin(1).mean().item(), deaths.mean().item(), deaths.amax(1).mean().item()]
    assert history.loc[0, ["alpha", "epsilon", "beta"]].tolist() == pytest.approx(spread, rel=1e-5)


def test_sum_over_branches_is_the_mean_times_their_number():
    _, mean = train_autoencoder(IMAGES, **{**SMALL, "epochs": 1}, lam=1.0)
    _, total = train_autoencoder(IMAGES, **{**SMALL, "epochs": 1}, lam=1.0, reduction="sum")
    assert total["connectivity"][0] == pytest.approx(4 * mean["connectivity"][0], rel=1e-5)
    same, _ = train_autoencoder(IMAGES, **{**SMALL, "epochs": 1}, lam=4.0)
    other, _ = train_autoencoder(IMAGES, **{**SMALL, "epochs": 1}, lam=1.0, reduction="sum")
    torch.testing.assert_close(weights(same), weights(other), rtol=1e-3, atol=1e-5)


def test_training_reaches_both_aims():
    easy = np.zeros((60, 3, 32, 32), np.uint8)
    easy[:] = np.random.default_rng(1).integers(0, 256, (60, 3, 1, 1))
    _, history = train_autoencoder(easy, epochs=25, batch_size=30, branches=2, branch_dim=4, progress=False)
    first, last = history.iloc[:2].mean(), history.iloc[-2:].mean()
    assert last["reconstruction"] < 0.5 * first["reconstruction"]
    assert last["connectivity"] < 0.7 * first["connectivity"]
    assert abs(last["epsilon"] - 2) < abs(first["epsilon"] - 2)


def test_lambda_of_zero_leaves_connectivity_alone():
    _, history = train_autoencoder(IMAGES, **SMALL, lam=0.0)
    assert history["connectivity"].iloc[-1] > 0


def test_same_seed_same_weights_and_the_global_state_stays():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, _ = train_autoencoder(IMAGES, **SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two, _ = train_autoencoder(IMAGES, **SMALL, seed=1)
    other, _ = train_autoencoder(IMAGES, **SMALL, seed=2)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))


def test_memory_mapped_tensor_and_float_images_train_alike(tmp_path):
    np.save(tmp_path / "i.npy", IMAGES)
    forms = [np.load(tmp_path / "i.npy", mmap_mode="r"), torch.from_numpy(IMAGES), IMAGES.astype(np.float32) / 255]
    expected = weights(train_autoencoder(IMAGES, **SMALL)[0])
    for form in forms:
        torch.testing.assert_close(weights(train_autoencoder(form, **SMALL)[0]), expected)


def test_interrupted_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole, whole_history = train_autoencoder(IMAGES, **SMALL)
    path = tmp_path / "state.pt"
    run_epoch = training._Trainer.run_epoch

    def stop(self, epoch, *rest):
        if epoch == 3:
            raise KeyboardInterrupt
        run_epoch(self, epoch, *rest)

    monkeypatch.setattr(training._Trainer, "run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(IMAGES, **SMALL, checkpoint=path)
    ran = []
    monkeypatch.setattr(
        training._Trainer, "run_epoch", lambda self, epoch, *rest: (ran.append(epoch), run_epoch(self, epoch, *rest))
    )
    resumed, history = train_autoencoder(IMAGES, **SMALL, checkpoint=path)
    assert ran == [3]
    assert torch.equal(weights(resumed), weights(whole))
    columns = list(training.MEASURES)
    np.testing.assert_array_equal(history[columns].to_numpy(), whole_history[columns].to_numpy())


def test_finished_training_is_loaded_continued_or_redone(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    train_autoencoder(IMAGES, **SMALL, checkpoint=path)
    ran: list[int] = []
    run_epoch = training._Trainer.run_epoch
    monkeypatch.setattr(
        training._Trainer, "run_epoch", lambda self, epoch, *rest: (ran.append(epoch), run_epoch(self, epoch, *rest))
    )
    _, history = train_autoencoder(IMAGES, **SMALL, checkpoint=path)
    assert ran == []
    assert len(history) == 9
    longer, _ = train_autoencoder(IMAGES, **{**SMALL, "epochs": 5}, checkpoint=path)
    assert ran == [4, 5]
    assert torch.equal(weights(longer), weights(train_autoencoder(IMAGES, **{**SMALL, "epochs": 5})[0]))
    ran.clear()
    kept = path.read_bytes()
    _, shorter = train_autoencoder(IMAGES, **{**SMALL, "epochs": 2}, checkpoint=path)
    assert ran == [1, 2]
    assert len(shorter) == 6
    assert path.read_bytes() == kept, "the longer training is kept"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[bytes, torch.Tensor]:
    """The checkpoint of a finished training, and its weights."""
    path = tmp_path_factory.mktemp("finished") / "state.pt"
    model, _ = train_autoencoder(IMAGES, **SMALL, checkpoint=path)
    return path.read_bytes(), weights(model)


@pytest.mark.parametrize(
    "change",
    # η lies among the deaths: one above them all would give the same gradients
    [{"seed": 9}, {"eta": 0.03}, {"lam": 1.0}, {"lr": 2e-3}, {"reduction": "sum"}, {"images": 255 - IMAGES}],
    ids=lambda change: next(iter(change)),
)
def test_checkpoint_of_another_training_is_not_used(tmp_path, finished, change):
    path = tmp_path / "state.pt"
    checkpoint, others = finished
    path.write_bytes(checkpoint)
    arguments = {"images": IMAGES, **SMALL, **change}
    expected, _ = train_autoencoder(**arguments)
    got, _ = train_autoencoder(**arguments, checkpoint=path)
    assert torch.equal(weights(got), weights(expected))
    assert not torch.equal(weights(got), others)


def test_whole_numbers_are_the_same_settings(tmp_path):
    path = tmp_path / "c"
    _, history = train_autoencoder(IMAGES, **{**SMALL, "eta": 2.0, "lam": 20.0}, checkpoint=path)
    before = path.read_bytes()
    _, again = train_autoencoder(IMAGES, **{**SMALL, "eta": 2, "lam": np.int64(20)}, checkpoint=path)
    assert path.read_bytes() == before
    assert again.equals(history)


def test_trainings_in_threads_are_those_alone_and_leave_the_random_state():
    seeds = range(4)
    alone = [weights(train_autoencoder(IMAGES, **{**SMALL, "seed": seed})[0]) for seed in seeds]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(len(seeds)) as pool:
        found = list(pool.map(lambda seed: weights(train_autoencoder(IMAGES, **{**SMALL, "seed": seed})[0]), seeds))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(alone, found, strict=True))


def test_images_that_are_lazily_negated():
    images = torch.from_numpy(IMAGES / np.float32(255))
    got, _ = train_autoencoder(torch._neg_view(-images), **SMALL)
    assert torch.equal(weights(got), weights(train_autoencoder(images, **SMALL)[0]))


def test_damaged_checkpoint_starts_again(tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(b"half a file")
    got, _ = train_autoencoder(IMAGES, **SMALL, checkpoint=path)
    assert torch.equal(weights(got), weights(train_autoencoder(IMAGES, **SMALL)[0]))


SCRIPT = """
import os, signal, sys
import numpy as np, torch
from corel import train_autoencoder, training
state, result, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
step, steps = training._Trainer.step, []

def counted(self, x):
    steps.append(1)
    if len(steps) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, x)

training._Trainer.step = counted
images = np.random.default_rng(0).integers(0, 256, (65, 3, 32, 32), dtype=np.uint8)
model, _ = train_autoencoder(images, epochs=4, batch_size=20, branches=4, branch_dim=3, progress=False, device="cpu",
                             checkpoint=state or None)
torch.save((model.state_dict(), len(steps)), result)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_process_goes_on_bit_for_bit(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(training.__file__).parent.parent)}
    state = tmp_path / "state.pt"

    def train(state: str, result: str, kill_at: int) -> int:
        words = [sys.executable, str(script), state, str(tmp_path / result), str(kill_at)]
        return subprocess.run(words, env=environment, timeout=300).returncode

    assert train(str(state), "killed.pt", 8) == -signal.SIGKILL  # in the third of four epochs
    assert state.exists()
    assert not (tmp_path / "killed.pt").exists()
    assert train(str(state), "killed.pt", 0) == 0
    assert train("", "whole.pt", 0) == 0
    (killed, steps), (whole, all_steps) = torch.load(tmp_path / "killed.pt"), torch.load(tmp_path / "whole.pt")
    assert (steps, all_steps) == (6, 12)
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


def test_progress_shows_losses_and_spread(capsys):
    train_autoencoder(IMAGES, **{**SMALL, "progress": True})
    error = capsys.readouterr().err
    for word in ("reconstruction", "connectivity", "α̂", "ε̂", "β̂", "9/9"):
        assert word in error


def test_silent_without_progress(capsys):
    train_autoencoder(IMAGES, **SMALL)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 0.0}, "eta: got 0.0"),
        ({"eta": float("nan")}, "eta: got nan"),
        ({"lam": -1.0}, "lam: got -1.0"),
        ({"lr": float("inf")}, "lr: got inf"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 66}, "images: got 65, fewer than batch_size = 66"),
        ({"branches": 7}, "branches: got 7"),
        ({"reduction": "max"}, "reduction: got 'max'"),
        ({"device": "gpu"}, "device: got 'gpu'"),
        ({"images": IMAGES[:, :1]}, "images: got shape"),
        ({"images": IMAGES / 100.0}, "must be finite and in"),
        ({"seed": 2**70}, "seed: got 1180591620717411303424; accepted are integers from"),
        ({"checkpoint": ""}, "checkpoint: got ''; accepted are paths of files"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        train_autoencoder(**{"images": IMAGES, **SMALL, **change})


@pytest.mark.parametrize("wrong", ["x", None, 1.5, True])
@pytest.mark.parametrize(
    "name", ["eta", "lam", "lr", "batch_size", "epochs", "branches", "branch_dim", "seed", "reduction"]
)
def test_wrong_types_are_named(name, wrong):
    if wrong == 1.5 and name in ("eta", "lam", "lr"):
        wrong = [1.5]
    error = ValueError if name == "reduction" and wrong == "x" else TypeError
    with pytest.raises(error, match=rf"^{name}: got {re.escape(repr(wrong))}; accepted are "):
        train_autoencoder(IMAGES, **{**SMALL, name: wrong})


@pytest.mark.parametrize("wrong", [3, ["state.pt"]])
def test_a_checkpoint_is_a_path(wrong):
    with pytest.raises(TypeError, match=r"^checkpoint: got .*; accepted are paths of files, and None"):
        train_autoencoder(IMAGES, **SMALL, checkpoint=wrong)


def test_a_checkpoint_that_cannot_be_written_is_named_before_training(tmp_path, monkeypatch):
    def no_epoch(*_):
        raise AssertionError("trained for nothing")

    monkeypatch.setattr(training._Trainer, "run_epoch", no_epoch)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "state.pt", tmp_path, str(tmp_path / ("x" * 300)), f"{tmp_path}/a\0b"):
        with pytest.raises(ValueError, match=r"^checkpoint: cannot write to "):
            train_autoencoder(IMAGES, **SMALL, checkpoint=path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_finished_training_is_loaded_from_where_nothing_can_be_written(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    trained, _ = train_autoencoder(IMAGES, **SMALL, checkpoint=path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    assert torch.equal(weights(train_autoencoder(IMAGES, **SMALL, checkpoint=path)[0]), weights(trained))
    with pytest.raises(ValueError, match=r"state.pt' \(Permission denied\)"):
        train_autoencoder(IMAGES, **{**SMALL, "epochs": 4}, checkpoint=path)


def test_other_forms_of_the_same_images():
    settings = {**SMALL, "epochs": 1}
    floats = (IMAGES > 127).astype(np.float32)
    expected = weights(train_autoencoder(floats, **settings)[0])
    tensor = torch.from_numpy(floats)
    forms = [floats.astype(">f4"), floats.astype(np.longdouble), tensor.bfloat16(), tensor.half(), floats[::-1]]
    for form in forms[:-1]:
        assert torch.equal(weights(train_autoencoder(form, **settings)[0]), expected)
    backwards = weights(train_autoencoder(forms[-1], **settings)[0])
    assert torch.equal(backwards, weights(train_autoencoder(forms[-1].copy(), **settings)[0]))


@pytest.mark.parametrize(
    "images", [torch.from_numpy(IMAGES).to_sparse(), torch.zeros(65, 3, 32, 32, device="meta"), IMAGES.astype(object)]
)
def test_images_without_numbers_in_memory(images):
    with pytest.raises(TypeError, match=r"^images: got (a tensor|dtype object)"):
        train_autoencoder(images, **SMALL)


@pytest.mark.parametrize("images", [IMAGES.astype(np.int32), [1, 2, 3]])
def test_wrong_kind_of_images(images):
    with pytest.raises(TypeError, match="images: got"):
        train_autoencoder(images, **SMALL)


def test_progress_is_a_boolean():
    with pytest.raises(TypeError, match="progress: got 'no'; accepted are True and False"):
        train_autoencoder(IMAGES, **{**SMALL, "progress": "no"})


def test_divergence_is_named():
    with pytest.raises(FloatingPointError, match="not finite in epoch 1"):
        train_autoencoder(IMAGES, **{**SMALL, "lr": 1e30})
