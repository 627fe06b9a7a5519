"""The figures as a command: what each leaves, that its numbers are those of rows and trainings, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

import methods.corel
from bench import figures
from bench.analysis.figures import FIGURES, barcode, neighbours, runtime, three_gaussians, transfer
from bench.engine.command_line import run
from bench.engine.protocol import derive_seed
from bench.engine.store import STORE_FILE, Store
from bench.timing import contenders, peers
from corel.training import _permutation, train_autoencoder

EPOCHS, BATCH = 2, 12


@pytest.fixture(scope="module")
def small():
    """Figures of little: few epochs, batches and pictures; a study of ripser and ours."""
    ready = [peers.Ready("ripser", peers.ripser(1.0), None)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(three_gaussians, "EPOCHS", (1, 2))
        patch.setattr(three_gaussians, "BATCHES", 20)
        patch.setattr(barcode, "STEPS", (0, 30, 60))
        patch.setattr(runtime, "SMALL", ["--sizes", "8", "16", "--repeats", "1", "--batch", "2"])
        patch.setattr(peers, "installed", lambda p: (ready, {"ripser": "1"}, []))
        patch.setattr(contenders, "IMAGES_SHAPE", (100, 3, 32, 32))
        patch.setattr(contenders, "STEPS", 1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three classes of coloured noise: 20 training and 8 test images each."""
    place, generator = tmp_path_factory.mktemp("data") / "images", np.random.default_rng(0)
    for name, colour in {"red": (190, 60, 60), "green": (60, 190, 60), "grey": (110, 110, 110)}.items():
        for split, count in (("train", 20), ("test", 8)):
            (place / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + generator.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / split / name / f"{index}.png")
    return place


@pytest.fixture(scope="module")
def command(small, folder, tmp_path_factory):
    """Run the command in a folder of its own; returns its status. ``command.out`` is the output folder."""
    place = tmp_path_factory.mktemp("figures")

    def draw(*names, words=(), out="out"):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            given = [
                "--datasets",
                f"folder:{folder}",
                "--set",
                f"corel.epochs={EPOCHS}",
                "--set",
                f"corel.batch_size={BATCH}",
                "--runs",
                "2",
                "--seed",
                "5",
                "--device",
                "cpu",
                "--out",
                out,
            ]
            return run("bench.figures", figures.main, [*names, *given, *words])  # fmt: skip

    draw.place, draw.out = place, place / "out"
    return draw


@pytest.fixture(scope="module")
def drawn(command) -> Path:
    """The folder of all figures."""
    assert command("all") == 0
    return command.out / "figures"


def auxiliaries(out: Path) -> pd.DataFrame:
    with Store(out / STORE_FILE) as store:
        return store.rows().auxiliaries


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_two_pictures_numbers_and_a_caption(drawn, name):
    assert (drawn / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert (drawn / f"{name}.pdf").read_bytes()[:4] == b"%PDF"
    assert len(pd.read_csv(drawn / f"{name}.csv")) > 0
    head, _, *lines = (drawn / f"{name}.md").read_text().splitlines()
    assert head.startswith(f"**{name}.** ")
    assert f"`python -m bench.figures {name} --datasets" in lines[-1]
    assert "commit " in lines[-1]
    assert all(line.startswith("- ") for line in lines)
    assert not any(str(drawn.parent) in line for line in lines)
    trained = [line for line in lines if line.startswith("- encoder: ")]
    assert all(f"epochs={EPOCHS}" in line and "cpu (" in line and "fingerprint" in line for line in trained)
    assert len(trained) == {"fig2": 0, "fig4": 3, "fig5": 4, "fig7": 0}.get(name, 1)


def test_the_animation_moves_and_is_small(drawn):
    with Image.open(drawn / "barcode.gif") as picture:
        assert picture.n_frames == 3
        assert picture.info["loop"] == 0
    assert (drawn / "barcode.gif").stat().st_size < 1_500_000


def test_losses_are_the_history_of_the_training(drawn, folder, command):
    table = pd.read_csv(drawn / "fig4.csv")
    shown = table[table["branches"] == 32].reset_index(drop=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(command.place)
        from bench import data

        images = data.load(f"folder:{folder}").train_images
    seed = derive_seed("auxiliary", 5)
    _, history = train_autoencoder(
        images, branches=32, branch_dim=5, epochs=EPOCHS, batch_size=BATCH, seed=seed, device="cpu", progress=False
    )
    for column in ("epoch", "iteration", "connectivity", "reconstruction"):
        np.testing.assert_allclose(shown[column], history[column], rtol=1e-6, atol=1e-6)
    assert set(pd.read_csv(drawn / "fig5.csv")["lam"]) == {1, 10, 20, 40}


def test_aucs_are_means_of_the_rows(drawn):
    with Store(drawn.parent / STORE_FILE) as store:
        cells = store.rows().cells
    shown = pd.read_csv(drawn / "fig5-auc.csv")
    assert list(shown["m"]) == 4 * [10, 20]
    lam = np.array([json.loads(settings)["lam"] for settings in cells["settings"]])
    branches = np.array([json.loads(settings)["branches"] for settings in cells["settings"]])
    for row in shown.itertuples():
        own = cells[(lam == row.lam) & (branches == 16) & (cells["train_per_class"] == str(row.m))]
        assert (len(own), own["run"].nunique()) == (6, 2)
        per_run = own.groupby("run")["auc"].mean()
        assert row.auc_mean == pytest.approx(per_run.mean(), abs=1e-6)
        assert row.auc_std == pytest.approx(per_run.std(), abs=1e-6)
    assert cells["command"].str.startswith("python -m bench.table1 --datasets folder:").all()


def test_trainings_are_the_tables_and_known_to_it(drawn):
    assert len(auxiliaries(drawn.parent)) == 6  # λ = 20 with 16 × 10 serves both figures


def test_again_nothing_is_trained_and_every_number_is_the_same(drawn, command, monkeypatch, capsys):
    monkeypatch.setattr(methods.corel, "train_autoencoder", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("bench.engine.tasks.run_task", lambda task: pytest.fail("computed again"))
    before = {path.name: path.read_bytes() for path in drawn.iterdir()}
    assert command("all") == 0
    assert {path.name: path.read_bytes() for path in drawn.iterdir()} == before
    assert f"{len(FIGURES)} figures drawn, 0 failed" in capsys.readouterr().out


def test_rows_of_others_are_taken(drawn, command, monkeypatch, capsys):
    monkeypatch.setattr("bench.engine.tasks.run_task", lambda task: pytest.fail("computed again"))
    assert command("fig4", "fig7", words=["--from", str(drawn.parent)], out="other") == 0
    assert not (command.place / "other" / "runtime.csv").exists()
    for name in ("fig4-auc.csv", "fig7.csv"):
        assert (command.place / "other" / "figures" / name).read_bytes() == (drawn / name).read_bytes()


def test_the_published_study_is_the_default(monkeypatch, tmp_path):
    monkeypatch.chdir(Path(runtime.__file__).parents[3])
    monkeypatch.setattr("bench.runtime.main", lambda words: pytest.fail("measured again"))
    table = runtime.measured(SimpleNamespace(out=tmp_path, published_in=[], device="cpu"))
    assert table["command"].str.contains("--out results/runtime").all()


def test_a_runtime_study_without_rows_is_taken(monkeypatch, tmp_path, capsys):
    """bench.runtime leaves no rows in its folder."""
    folder = Path(runtime.__file__).parents[3] / "results" / "runtime-plane"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.runtime.main", lambda words: pytest.fail("measured again"))
    assert run("bench.figures", figures.main, ["fig7", "--from", str(folder), "--device", "cpu"]) == 0
    assert "--out results/runtime-plane" in Path("runs/figures/fig7.md").read_text()


def test_deaths_and_barcodes_are_those_of_scipy():
    cloud = torch.randn(three_gaussians.BATCH, 2, generator=torch.Generator().manual_seed(1))
    deaths = minimum_spanning_tree(cdist(cloud, cloud, "cityblock")).data
    expected = [deaths.min(), deaths.mean(), deaths.max()]  # every batch of 50 is the whole cloud
    found = three_gaussians.spread(cloud, torch.Generator().manual_seed(2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_mapping_does_not_depend_on_where_one_looks(small):
    points = three_gaussians.sample(torch.Generator().manual_seed(0))
    first, last = three_gaussians.mapped(points, [0, 40], seed=3)
    assert torch.equal(three_gaussians.mapped(points, [0, 7, 31, 40], seed=3)[-1], last)
    assert not torch.equal(first, last)
    assert not torch.equal(three_gaussians.mapped(points, [40], seed=4)[0], last)


def test_mean_deaths_of_a_branch(drawn):
    for name in ("fig6", "fig8"):
        table = pd.read_csv(drawn / f"{name}.csv")
        assert table.groupby("data")["branch"].apply(list).tolist() == 2 * [list(range(1, 17))]
        assert (table["alpha"] <= table["epsilon"]).all()
        assert (table["epsilon"] <= table["beta"]).all()
        assert set(table["batches"]) >= {24 // BATCH}


def test_other_images_need_no_download():
    for _, images in transfer.SAMPLES:
        patches = images()
        assert (patches.dtype, patches.shape[1:]) == (np.uint8, (3, 32, 32))
        assert len(patches) >= 400
        assert patches.std() > 20


def test_neighbours_are_counted_without_the_point_itself(drawn):
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    expected = (cdist(points, points, "cityblock") <= 1.5).sum(1) - 1
    np.testing.assert_array_equal(neighbours._neighbours(points, 1.5), expected)
    table = pd.read_csv(drawn / "neighbours.csv")
    assert (table["bound"] == table["m"] - BATCH + 1).all()
    assert (table["least"] <= table["median"]).all()
    wide = table.pivot(index=["branch", "m"], columns="radius_is", values="median")
    assert (wide["beta_mean"] <= wide["beta_max"]).all()


def test_the_barcode_before_is_that_of_the_weights_that_training_began_with():
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    settings = methods.corel.CorelSettings(epochs=1, batch_size=16, branches=4, branch_dim=3)
    method = methods.corel.Corel(settings, seed=9, device="cpu")
    _, history = train_autoencoder(
        images, branches=4, branch_dim=3, epochs=1, batch_size=16, seed=9, device="cpu", progress=False
    )
    first = images[_permutation(len(images), 9, 1)[:16].numpy()]
    state = torch.random.get_rng_state()
    codes = barcode.initial_codes(method, first)
    assert torch.equal(torch.random.get_rng_state(), state)
    deaths = barcode.death_times(torch.from_numpy(codes))
    assert deaths.mean().item() == pytest.approx(history["epsilon"][0], rel=1e-4)


def test_a_figure_that_fails_costs_no_other(command, monkeypatch, capsys):
    def fail(study):
        raise RuntimeError("nothing\nto see")

    monkeypatch.setattr(neighbours, "draw", fail)
    assert command("neighbours", "fig2", out="failing") == 1
    captured = capsys.readouterr()
    assert "neighbours: failed: RuntimeError: nothing to see\n" in captured.err
    assert "1 figures drawn, 1 failed" in captured.out
    assert (command.place / "failing" / "figures" / "fig2.png").exists()


def test_failed_cells_are_named(drawn, command, monkeypatch, capsys):
    from bench.engine import tasks

    monkeypatch.setattr(tasks, "run_task", lambda task: tasks.Outcome(error="ValueError: of this cell"))
    assert command("fig5", words=["--runs", "3"], out="cells") == 1
    monkeypatch.undo()
    err = capsys.readouterr().err
    assert "fig5: failed: RuntimeError: 18 of 18 cells failed, the first with ValueError: of this cell" in err


def test_an_encoder_without_history_is_named(drawn, command, capsys):
    kept = {path: path.read_bytes() for path in (command.out / "cache" / "auxiliary").glob("*.history.csv")}
    try:
        for path in kept:
            path.unlink()
        assert command("fig5", "neighbours") == 1
        assert "no history is kept beside the encoder" in capsys.readouterr().err
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_an_interrupt_is_one_line(command, monkeypatch, capsys):
    def interrupt(study):
        raise KeyboardInterrupt

    monkeypatch.setattr(neighbours, "draw", interrupt)
    assert command("fig2", "neighbours", out="interrupted") == 130
    told = "bench.figures: interrupted; 1 of 2 figures are drawn, and what they need is kept"
    assert capsys.readouterr().err.strip().splitlines()[-1] == told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fig3"], "argument FIGURE: got 'fig3'; accepted are fig2, fig4"),
        ([], "FIGURE"),
        (["fig2", "--datasets", "mnist"], "--datasets: got 'mnist'"),
        (["fig2", "--auxiliary", "mnist"], "--auxiliary: got 'mnist'"),
        (["fig2", "--profile", "slow"], "argument --profile: "),
        (["fig2", "--device", "tpu"], "argument --device: got 'tpu'"),
        (["fig2", "--runs", "0"], "argument --runs: got '0'"),
        (["fig2", "--from", "nowhere"], "--from: got 'nowhere'"),
        (["fig2", "--set", "corel.size=3"], "--set: got 'corel.size=3'"),
        (["fig2", "--set", "corel.lam=3", "--set", "corel.lam=4"], "--set: got more than one value"),
        (["fig2", "--out", "file/below"], "--out: cannot write"),
        (["fig2", "--out", "published"], "--out: got 'published', the folder of a published table"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("published").mkdir()
    Path("published", "rows.csv").touch()
    try:
        status = run("bench.figures", figures.main, words)
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (2, 1)
    assert told in err


def test_wrong_options_import_nothing_large(tmp_path):
    code = (
        "import sys\nfrom bench.engine.command_line import run\nfrom bench.figures import main\n"
        "for words in (['--help'], ['--version'], ['fig3'], ['fig2', '--device', 'tpu'], "
        "['fig2', '--datasets', 'mnist']):\n"
        "    try:\n        print('status', run('bench.figures', main, words))\n"
        "    except SystemExit as stop:\n        print('status', stop.code)\n"
        "print(sorted({'numpy', 'torch', 'pandas', 'matplotlib', 'PIL', 'corel'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stdout.splitlines() if line.startswith(("status", "["))] == [
        "status 0", "status 0", "status 2", "status 2", "status 2", "[]"]  # fmt: skip
    assert all(name in done.stdout for name in FIGURES)
