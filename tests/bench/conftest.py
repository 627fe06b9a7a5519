"""A small image folder and a small method, so that the whole way of a table runs in seconds."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

METHOD = '''
"""Scores by the distance to the mean colour of the class; `offset` and the seed shape it, `fail_on` breaks it."""
import dataclasses
import os
import time

import numpy as np

from methods.base import NonFiniteLossError, OneClassMethod


@dataclasses.dataclass(frozen=True)
class Settings:
    noise: float = 0.1


class MeanColour(OneClassMethod):
    name = "mean-colour"
    profiles = {"paper": Settings(), "quick": Settings(noise=0.2)}

    def fit(self, features):
        time.sleep(float(os.environ.get("MEAN_COLOUR_SLEEP", "0")))
        if os.environ.get("MEAN_COLOUR_LOG"):
            with open(os.environ["MEAN_COLOUR_LOG"], "a") as log:
                log.write(f"{os.getpid()} {len(features)}\\n")
        if os.environ.get("MEAN_COLOUR_FAIL") and features[:, 0].mean() > 150:
            raise NonFiniteLossError("mean-colour: the loss of epoch 3 is nan")
        generator = np.random.default_rng(self.seed)
        self.mean = features.mean(axis=(0, 2, 3)) + self.settings.noise * generator.normal(size=3)
        return self

    def score_samples(self, features):
        return -np.abs(features.mean(axis=(2, 3)) - self.mean).sum(axis=1)

    def score_variants(self, features):
        score = self.score_samples(features)
        return {"mean": score, "oracle": np.stack([score, -score])}
'''


def write_images(folder: Path, colours: dict[str, tuple[int, int, int]], train: int = 8, test: int = 5) -> Path:
    """Write noisy images of one colour per class, ``train`` and ``test`` of each."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, colour in colours.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + generator.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


@pytest.fixture(autouse=True, scope="session")
def signals_as_in_a_terminal() -> Iterator[None]:
    """Let Ctrl-C and a closed terminal be heard, also where what runs the tests ignores them, as for a job behind."""
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def without_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the page at the end of a table, which takes longer than the table; not in tests marked ``page``."""
    if "page" not in request.keywords:
        monkeypatch.setattr("bench.analysis.page.write", lambda *_, **__: None)


@pytest.fixture(scope="session")
def write_experiment() -> Callable[[Path], None]:
    """Writes the images and the method of the two fixtures below to a folder, as images/ and mean_colour.py."""

    def write(folder: Path) -> None:
        write_images(folder / "images", {"red": (190, 60, 60), "green": (60, 190, 60), "grey": (110, 110, 110)})
        (folder / "mean_colour.py").write_text(METHOD)

    return write


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Three classes of coloured noise: 8 training and 5 test images each."""
    return write_images(tmp_path / "images", {"red": (190, 60, 60), "green": (60, 190, 60), "grey": (110, 110, 110)})


@pytest.fixture
def method_file(tmp_path: Path) -> str:
    """``FILE.py:CLASS`` of a method that takes milliseconds and whose scores depend on its seed."""
    path = tmp_path / "mean_colour.py"
    path.write_text(METHOD)
    return f"{path}:MeanColour"
