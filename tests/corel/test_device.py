"""From a word to a device."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from corel._device import (
    GlobalSettings,
    global_settings,
    random_state_kept,
    resolve_device,
    standard_torch,
    use_global_settings,
)


def test_names_of_the_cpu():
    for name in ("cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)):
        assert resolve_device(name).type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize(
    "name",
    ["cpu:7", torch.device("cpu", 1), "gpu", "meta", "cuda:x", "", None, 1.5, 0, True, 10**400, "x" * 999, "cpu\n"],
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"^device: got .*; accepted are 'auto', 'cpu', 'cuda' and 'cuda:N'"):
        resolve_device(name)


def _newer(name: str, precision: str) -> Callable[[], None]:
    """Sets a precision by the interface of PyTorch 2.9; ``name`` is dotted, "" for the widest place."""

    def change() -> None:
        place = torch.backends
        for part in filter(None, name.split(".")):
            place = getattr(place, part)
        place.fp32_precision = precision

    return change


OLDER: dict[str, Callable[[], None]] = {
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "products in tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "cudnn in float32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "cudnn off": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "cudnn chooses": lambda: setattr(torch.backends.cudnn, "benchmark", True),
}
NEWER = {
    f"{name or 'all'} {precision}": _newer(name, precision)
    for name in ("", "cudnn", "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
    for precision in ("tf32", "ieee", *(["bf16"] if name.startswith("mkldnn") else []))
}
# its public name sets the widest place, in 2.15
NEWER["mkldnn bf16"] = lambda: setattr(torch.backends._FP32Precision("mkldnn", "all"), "fp32_precision", "bf16")
CHANGES = OLDER | (NEWER if hasattr(torch.backends, "_FP32Precision") else {})


@pytest.fixture
def _settings_kept() -> Iterator[None]:
    found = global_settings()
    yield
    use_global_settings(found)
    assert global_settings() == found


@pytest.mark.usefixtures("_settings_kept")
@pytest.mark.parametrize("name", CHANGES)
def test_settings_are_standard_within_and_as_found_after(name):
    CHANGES[name]()
    found = global_settings()
    assert global_settings() == found  # to read them changes nothing
    with standard_torch():
        standard = GlobalSettings()
        assert global_settings() == standard._replace(precisions=standard.precisions[: len(found.precisions)])
        assert torch.get_float32_matmul_precision() == "highest"  # readable, whatever was set by which interface
        assert not torch.backends.cudnn.allow_tf32
    assert global_settings() == found


@pytest.mark.usefixtures("_settings_kept")
def test_blocks_of_threads_that_overlap():
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    found, entered, left = global_settings(), threading.Event(), threading.Event()

    def other() -> None:
        with standard_torch():
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=other)
    with standard_torch():
        thread.start()
        assert entered.wait(60)
    assert torch.get_default_dtype() == torch.float32  # the other block is not over
    assert torch.get_float32_matmul_precision() == "highest"
    left.set()
    thread.join()
    assert global_settings() == found


@pytest.mark.usefixtures("_settings_kept")
def test_a_block_that_fails_to_begin_changes_nothing(monkeypatch):
    torch.set_default_dtype(torch.float64)
    found, use = global_settings(), use_global_settings

    def interrupted(settings: GlobalSettings) -> None:
        use(settings)
        if settings == GlobalSettings():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("corel._device.use_global_settings", interrupted)
        with pytest.raises(KeyboardInterrupt), standard_torch():
            pass
    assert global_settings() == found
    with standard_torch():
        assert torch.get_default_dtype() == torch.float32


HOSTILE = """
import os, threading
import torch
from corel._device import random_state_kept, standard_torch

torch.backends.disable_global_flags()
with standard_torch():
    assert torch.backends.cudnn.deterministic
assert not torch.backends.cudnn.deterministic

held, over = threading.Event(), threading.Event()
def hold():
    with random_state_kept(torch.device("cpu")):
        held.set()
        over.wait(60)
thread = threading.Thread(target=hold)
thread.start()
held.wait(60)
child = os.fork()
if child == 0:
    with standard_torch(), random_state_kept(torch.device("cpu")):
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over.set()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_flags_that_may_not_be_set_and_a_fork_while_a_thread_trains():
    run = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, timeout=120)
    assert run.stdout == "7\n", run.stderr


def test_the_random_state_is_given_back_and_threads_take_turns():
    order: list[str] = []
    about_to = threading.Event()

    def other() -> None:
        about_to.set()
        with random_state_kept(torch.device("cpu")):
            order.append("other")

    state, thread = torch.get_rng_state(), threading.Thread(target=other)
    with random_state_kept(torch.device("cpu")):
        thread.start()
        assert about_to.wait(60)
        thread.join(0.2)
        torch.rand(3)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    assert torch.equal(torch.get_rng_state(), state)
