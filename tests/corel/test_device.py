"""From a word to a device."""

from __future__ import annotations

import pytest
import torch

from corel._device import resolve_device


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
