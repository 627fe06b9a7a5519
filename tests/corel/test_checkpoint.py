"""Files that are whole or not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from corel.checkpoint import Checkpoint, resumed_seconds, write_atomically


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, lambda stream: stream.write(b"old"))

    def fail(stream):
        stream.write(b"half of the new")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_everything_random_comes_back(tmp_path):
    module, generator = torch.nn.Linear(2, 2), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = Checkpoint(tmp_path / "c.pt", "key")
    checkpoint.save(3, extra={"losses": [1.0, 2.0]}, module=module, optimizer=optimizer, generator=generator)
    expected = torch.rand(2), torch.rand(2, generator=generator)
    other = torch.nn.Linear(2, 2)
    fresh = {
        "module": other,
        "optimizer": torch.optim.Adam(other.parameters()),
        "generator": torch.Generator().manual_seed(9),
    }
    assert Checkpoint(tmp_path / "c.pt", "key").load(**fresh) == (3, {"losses": [1.0, 2.0]})
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(torch.rand(2), expected[0])
    assert torch.equal(torch.rand(2, generator=fresh["generator"]), expected[1])
    assert fresh["optimizer"].state_dict()["state"][0]["step"] == 1


@pytest.mark.parametrize("there", [1, 3])
def test_a_file_from_a_machine_with_another_number_of_gpus(tmp_path, monkeypatch, there):
    states, restored = [torch.tensor([1]), torch.tensor([2])], {}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({device: state.item()}))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    module = torch.nn.Linear(1, 1)
    Checkpoint(tmp_path / "c.pt").save(3, module=module)
    assert Checkpoint(tmp_path / "c.pt").load(module=module) == (3, None)
    assert restored == ({0: 1} if there == 1 else {0: 1, 1: 2})


def test_gpus_that_are_not_in_use_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: pytest.fail("would initialise the GPUs"))
    module = torch.nn.Linear(1, 1)
    Checkpoint(tmp_path / "c.pt").save(3, module=module)
    assert Checkpoint(tmp_path / "c.pt").load(module=module) == (3, None)


def test_other_key_other_parts_or_damage_mean_no_checkpoint(tmp_path):
    path = tmp_path / "c.pt"
    module = torch.nn.Linear(1, 1)
    Checkpoint(path, "key").save(1, module=module)
    assert Checkpoint(path, "other").load(module=module) == (0, None)
    assert Checkpoint(path, "key").load(module=module, more=module) == (0, None)
    assert Checkpoint(path, "key").load(module=module)[0] == 1
    path.write_bytes(path.read_bytes()[:100])
    assert Checkpoint(path, "key").load(module=module) == (0, None)
    assert Checkpoint(tmp_path / "none.pt").load(module=module) == (0, None)


def test_the_time_of_earlier_processes_is_counted_once_resumed(tmp_path, monkeypatch):
    now, path = 0.0, tmp_path / "c.pt"
    monkeypatch.setattr("time.perf_counter", lambda: now)
    before, checkpoint = resumed_seconds(), Checkpoint(path)
    now = 10.0
    checkpoint.save(1)
    now = 15.0
    checkpoint.save(2)
    now = 20.0  # killed: what came after the last epoch is lost, and done again
    assert resumed_seconds() == before
    assert Checkpoint(path, "other").load() == (0, None)
    assert resumed_seconds() == before
    resumed = Checkpoint(path)
    now = 100.0
    assert resumed.load() == (2, None)
    assert resumed_seconds() == before + 15
    now = 103.0
    resumed.save(3)
    Checkpoint(path).load()
    assert resumed_seconds() == before + 15 + 18


def test_a_file_without_its_time_is_resumed(tmp_path):
    """Those of earlier versions have none."""
    path, before = tmp_path / "c.pt", resumed_seconds()
    Checkpoint(path).save(1)
    state = torch.load(path, weights_only=True)
    del state["seconds"]
    torch.save(state, path)
    assert Checkpoint(path).load() == (1, None)
    assert resumed_seconds() == before


def test_no_path_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(None)
    checkpoint.save(1, module=torch.nn.Linear(1, 1))
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_remove(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    checkpoint.save(1)
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"parts": {"module": {}}}, {"rng": None}, {"epoch": "x"}, {"seconds": "x"}, {"parts": None}, {"key": None}],
)
def test_a_file_that_something_else_wrote_leaves_everything_untouched(tmp_path, change):
    module = torch.nn.Linear(1, 1)
    Checkpoint(tmp_path / "c.pt", "key").save(1, module=torch.nn.Linear(1, 1))
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.rand(1)  # another random state than the file's
    weight, random = module.weight.detach().clone(), torch.get_rng_state()
    for content in ({**state, **change}, [state], 3):
        torch.save(content, tmp_path / "c.pt")
        assert Checkpoint(tmp_path / "c.pt", "key").load(module=module) == (0, None)
        assert torch.equal(module.weight, weight)
        assert torch.equal(torch.get_rng_state(), random)


class Runs:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_of_a_file_is_run(tmp_path):
    torch.save({"key": "key", "parts": Runs(tmp_path / "ran")}, tmp_path / "c.pt")
    assert Checkpoint(tmp_path / "c.pt", "key").load() == (0, None)
    assert not (tmp_path / "ran").exists()


def test_threads_may_write_the_same_file(tmp_path):
    def write(number: int) -> None:
        write_atomically(tmp_path / "f", lambda stream: stream.write(bytes([number]) * 1000))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(200)))
    content = (tmp_path / "f").read_bytes()
    assert content == content[:1] * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
