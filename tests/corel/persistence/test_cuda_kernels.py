"""The GPU kernels: interpreted here, compiled for a GPU that need not be there, and run on one if it is."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from sklearn.base import clone

import corel
from corel import training

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed on this platform")

# The interpreter is chosen when a kernel is defined, so a process of its own runs them.
INTERPRET = """
import json, math, torch, corel
from corel.persistence.kernels import cpu, triton_kernels, triton_lengths
generator = torch.Generator().manual_seed(0)
differences, compared = [], 0

def by_boruvka(points, p):
    columns = triton_lengths.columns_of(points)
    trees = [triton_kernels.boruvka(c, triton_lengths.constants_of(c, p), 4, 8) for c in columns]
    return [torch.stack(part) for part in zip(*trees)]

for trial in range(12):
    n, d, batch = (int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((1, 14), (1, 6), (1, 3)))
    n = trial + 1 if trial < 3 else n
    d = 19 if trial in (4, 6) else d  # lengths are computed before
    kind = ("normal", "grid", "equal", "tiny", "huge", "mixed")[trial % 6]
    x = torch.randn(batch, n, d, generator=generator, dtype=torch.float64)
    if kind == "grid":
        x = torch.randint(0, 3, (batch, n, d), generator=generator).double()
    if kind == "equal":
        x = torch.ones_like(x)
    if kind == "mixed":
        x = x * 10.0 ** torch.randint(-12, 13, (batch, n, 1), generator=generator)
    dtype = torch.float32 if trial < 6 else torch.float64
    small, large = (1e-30, 1e30) if dtype == torch.float32 else (1e-200, 1e200)
    y = (x * {"tiny": small, "huge": large}.get(kind, 1.0)).to(dtype)
    z = y.transpose(0, 1).reshape(n, -1)
    matrix = (y.sum(2, keepdim=True) - y.sum(2, keepdim=True).mT).abs()
    expected = cpu.trees_of_distances(matrix)
    same = {"distances": torch.equal(triton_kernels.trees_of_distances(matrix), torch.from_numpy(expected))}
    for p in (1.0, 2.0, math.inf):
        tree = edges, lengths = [torch.from_numpy(part) for part in cpu.spanning_trees(y, p)]
        weights = torch.randn(lengths.shape, generator=generator, dtype=dtype)
        weights[..., ::3] = 0
        found = {"prim": triton_kernels.spanning_trees(y, p)}
        if n > 1:
            found["boruvka"] = by_boruvka(y, p)
        same |= {name: all(map(torch.equal, part, tree)) for name, part in found.items()}
        same["gradient"] = torch.equal(
            triton_kernels.lengths_backward(y, *tree, weights, p), cpu.lengths_backward(y, *tree, weights, p)
        )
        here, there = (kernels.connectivity(z, batch, 1.1, 1 / 3, p, True) for kernels in (cpu, triton_kernels))
        same["loss"] = torch.allclose(there[0], here[0], rtol=1e-6 if dtype == torch.float32 else 1e-14)
        same["gradient of the loss"] = torch.equal(there[1], here[1]) and torch.equal(there[2], here[2])
        without = triton_kernels.connectivity(z, batch, 1.1, 1 / 3, p, False)
        same["loss alone"] = torch.equal(without[0], there[0]) and len(without[1]) == 0
        compared += 1
        differences += [[name, kind, n, d, p, str(dtype)] for name, equal in same.items() if not equal]
assert torch.equal(triton_kernels.merge_edges(y, 3.0), corel.merge_edges(y, 3.0))
assert not triton_kernels.has_gradient(5, 2, 3.0)
for n in (1, 5, 2000, 5000):
    for d in (2, 17):
        assert triton_kernels.merge_edges(torch.zeros(0, n, d), 1.0).shape == (0, n - 1, 2)
assert triton_kernels.spanning_trees(torch.zeros(2, 1, 17), 1.0)[0].shape == (2, 0, 2)
triton_kernels.MATRIX_BYTES = 1  # one cloud at a time
y = torch.randn(3, 9, 17, generator=generator)
assert torch.equal(triton_kernels.merge_edges(y, 1.0), corel.merge_edges(y))
# numbers whose sign is yet to be changed
y, weights = torch.randn(2, 9, 1, generator=generator), torch.randn(2, 8, generator=generator)
tree = triton_kernels.spanning_trees(y, 1.0)
expected = triton_kernels.lengths_backward(y, *tree, weights, 1.0)
assert torch.equal(triton_kernels.lengths_backward((-y)._neg_view(), *tree, (-weights)._neg_view(), 1.0), expected)
# infinite coordinates give what they give by the other algorithm
y = torch.tensor([[[math.inf, 0.0], [math.inf, 0.0], [1.0, 0.0], [2.0, 0.0]]])
for p in (1.0, 2.0, math.inf):
    for one, other in zip(triton_kernels.spanning_trees(y, p), by_boruvka(y, p)):
        assert torch.equal(one.nan_to_num(nan=-1.0), other.nan_to_num(nan=-1.0)), (p, one, other)
# NaN, which is not looked for on a GPU: every index is in range, every point in the tree, and NaN comes out
for place in range(4):
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]])
    for coordinate in (0, 1):
        y = x.clone()
        y[place, coordinate] = math.nan
        for p in (1.0, 2.0, math.inf):
            for edges, lengths in (triton_kernels.spanning_trees(y[None], p), by_boruvka(y[None], p)):
                compared += 1
                nan = lengths.isnan().tolist()
                if edges.shape[0] == 1 and place == 1:  # the gradient is NaN too, at both ends
                    gradient = triton_kernels.lengths_backward(y[None], edges, lengths, torch.ones(1, 3), p)
                    assert gradient[0, edges[0, 2]].isnan().any(1).all() and not gradient.isnan().all()
                if set(edges.flatten().tolist()) != {0, 1, 2, 3} or nan != [[False, False, True]]:
                    differences.append(["NaN", place, p, edges.tolist(), lengths.tolist()])
print(json.dumps({"compared": compared, "differences": differences}))
"""

COMPILE = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from corel.persistence.kernels import triton_boruvka, triton_gradients, triton_kernels
found = {}

def build(name, kernel, types, constants):
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    found[name] = ["cubin" in built.asm, "fma.rn.f" in built.asm["ptx"]]

for element, kind in (("fp32", 1), ("fp32", 2), ("fp64", 0), ("fp64", 2), ("fp32", 3)):
    double, real = element == "fp64", "*" + element
    bits = "*i64" if double else "*i32"
    types = {"eta": "i64", "factor": "i64"}
    types |= dict.fromkeys(("edges", "least", "found"), "*i64")
    integers = ("component", "rows", "best_vertex", "parent", "total", "new", "count", "ranks")
    types |= dict.fromkeys(integers, "*i32")
    numbers = ("source", "columns", "matrix", "lengths", "unsorted", "weights", "gradient", "loss")
    types |= dict.fromkeys((*numbers, "best_length", "shortest", "found_length"), real)
    scales = {"smallest": 2.0**-100, "down": 2.0**-80, "up": 2.0**100}
    fixed = {"KIND": kind, "DOUBLE": double}
    for dim in (0, 10) if kind < 3 else (0,):
        constants = {**scales, **fixed, "DIM": dim}
        build(f"prim {element} {kind} {dim}", triton_kernels._prim_kernel, types, {**constants, "BLOCK": 128})
        if kind < 3:
            sizes = {"ROWS": 4, "COLUMNS": 256}
            build(f"search {element} {kind} {dim}", triton_boruvka._search_kernel, types, {**constants, **sizes})
    if kind < 3:
        sizes = {"ROWS": 32, "COLUMNS": 32}
        build(f"matrix {element} {kind}", triton_kernels._matrix_kernel, types, {**scales, **fixed, **sizes})
        for loss in (True, False):
            constants = {**fixed, "LOSS": loss, "EDGES": 128, "COORDINATES": 16}
            build(f"gradient {element} {kind} {loss}", triton_gradients._gradient_kernel, types, constants)
    build(f"loss {element}", triton_gradients._loss_kernel, types, {"DOUBLE": double, "BLOCK": 1024})
    for name in ("begin_round", "least", "hook", "end_round", "shortest"):
        kernel = getattr(triton_boruvka, f"_{name}_kernel")
        integer = {"best_length": bits, "shortest": bits} if name == "shortest" else {}
        build(f"{name} {element}", kernel, {**types, **integer}, {"BLOCK": 256})
print(json.dumps(found))
"""


def run(script: str, **environment: str) -> dict[str, list]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**kept, **environment}, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_interpreted_kernels_give_the_cpus_edges():
    found = run(INTERPRET, TRITON_INTERPRET="1")
    assert found["compared"] == 36 + 48
    assert found["differences"] == []


def test_kernels_compile_for_a_gpu_without_fused_multiply_adds():
    found = run(COMPILE)
    assert len(found) == 41
    # a fused multiply-add would round lengths otherwise than the CPU does
    assert all(values == [True, False] for values in found.values()), found


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def _seeded():
    """Numbers are drawn on the CPU: the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@gpu
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(16, 100, 10), (1, 1, 3), (3, 2, 1), (5, 33, 40), (2, 1024, 4), (1, 1500, 10), (4, 1500, 3), (1, 5000, 3)]
)
def test_gpu_gives_the_cpus_numbers(shape, dtype, p):
    points = torch.randn(shape, dtype=dtype)
    for cloud in (points, points.mul(2).round()):
        here, there = cloud.clone().requires_grad_(), cloud.cuda().requires_grad_()
        assert torch.equal(corel.merge_edges(there, p).cpu(), corel.merge_edges(here, p))
        deaths, expected = corel.death_times(there, p), corel.death_times(here, p)
        assert torch.equal(deaths.cpu(), expected)
        weights = torch.randn(expected.shape, dtype=dtype)
        deaths.backward(weights.cuda())
        expected.backward(weights)
        assert torch.equal(there.grad.cpu(), here.grad)


@gpu
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("branches", [1, 4])
def test_loss_and_gradient_on_a_gpu(branches, p):
    code = torch.randn(60, 40, dtype=torch.float64)
    loss = corel.ConnectivityLoss(eta=1.3, branches=branches, p=p)
    here, there = code.clone().requires_grad_(), code.cuda().requires_grad_()
    value, expected = loss(there), loss(here)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value.cpu(), expected)
    torch.testing.assert_close(there.grad.cpu(), here.grad)
    small = code[:7, :8].cuda().requires_grad_()
    assert torch.autograd.gradcheck(loss, small)
    assert torch.autograd.gradgradcheck(lambda z: corel.death_times(z, p), small)


@gpu
def test_gpu_gives_the_cpus_edges_of_distances():
    for matrices in (torch.rand(3, 60, 60), torch.randint(0, 4, (2, 1, 30, 30)).double()):
        symmetric = matrices.triu(1) + matrices.triu(1).mT
        there = symmetric.cuda().requires_grad_()
        assert torch.equal(corel.merge_edges(distances=there).cpu(), corel.merge_edges(distances=symmetric))
        deaths = corel.death_times(distances=there)
        assert torch.equal(deaths.cpu(), corel.death_times(distances=symmetric))
        deaths.sum().backward()
        assert there.grad.sum() == deaths.numel()
        with pytest.raises(ValueError, match="distances: got a negative length"):
            corel.death_times(distances=-there)


@gpu
@pytest.mark.parametrize("algorithm", ["auto", "reduction"])
@pytest.mark.parametrize("max_dim", [0, 1, 2])
def test_diagrams_on_a_gpu_are_those_of_the_cpu(max_dim, algorithm):
    points = torch.randn(20, 3).mul(4).round().div(4)
    here, there = points.clone().requires_grad_(), points.cuda().requires_grad_()
    expected = corel.vr_persistence(here, max_dim=max_dim, algorithm=algorithm)
    found = corel.vr_persistence(there, max_dim=max_dim, algorithm=algorithm)
    for a, b in zip(found, expected, strict=True):
        for part in ("points", "birth_simplices", "death_simplices"):
            assert getattr(a, part).is_cuda
            assert torch.equal(getattr(a, part).cpu(), getattr(b, part))
    for diagrams in (found, expected):
        torch.cat([d.points[d.points.isfinite()] for d in diagrams]).sum().backward()
    torch.testing.assert_close(there.grad.cpu(), here.grad)


@gpu
def test_loss_and_gradient_in_a_cuda_graph():
    loss = corel.ConnectivityLoss(branches=16)
    code = torch.randn(100, 160)
    there = code.cuda().requires_grad_()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            loss(there).backward()
    torch.cuda.current_stream().wait_stream(side)
    there.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(there)
        value.backward()
    new = torch.randn(100, 160)
    with torch.no_grad():
        there.copy_(new)
    graph.replay()
    here = new.clone().requires_grad_()
    expected = loss(here)
    expected.backward()
    torch.testing.assert_close(value.cpu(), expected)
    torch.testing.assert_close(there.grad.cpu(), here.grad)


@gpu
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ball_counts_on_a_gpu_are_those_of_the_cpu(dtype, p):
    # whole coordinates, and a radius that no length is equal to where lengths are rounded
    stored, z = (torch.randint(-3, 4, (n, 6)).to(dtype) for n in (40, 30))
    here = corel.BallCount(4.0 if p in (1.0, math.inf) else 4.25, 2, p)
    there = clone(here).fit(stored.cuda())
    expected = here.fit(stored).score_samples(z)
    assert there.stored_.is_cuda
    assert 0 < expected.min() < expected.max()
    for points in (z.cuda(), z):
        assert there.score_samples(points).tolist() == expected.tolist()
    assert here.score_samples(z.cuda()).tolist() == expected.tolist()
    assert there.decision_function(z.cuda()).tolist() == (expected - 0.5).tolist()
    assert there.predict(torch.full((1, 6), 99.0, device="cuda")).tolist() == [-1]


TRAINING = {"epochs": 2, "batch_size": 10, "branches": 4, "branch_dim": 3, "progress": False}


@gpu
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_training_on_a_gpu(dtype, resident, monkeypatch):
    images = torch.randint(0, 256, (25, 3, 32, 32)).to(dtype)
    images = images if dtype == torch.uint8 else images / 255
    expected = corel.train_autoencoder(images, **TRAINING, device="cpu")[1]
    if not resident:
        monkeypatch.setattr(training, "_RESIDENT_BYTES", 0)
    here, there = (training._Batches(images.numpy(), torch.device(device)) for device in ("cpu", "cuda"))
    assert (there.resident is not None) == resident
    order = torch.tensor([3, 24, 0, 3])
    torch.testing.assert_close(there.take(there.place(order)).cpu(), here.take(order))
    model, history = corel.train_autoencoder(images, **TRAINING, device="cuda")
    assert next(model.parameters()).is_cuda
    measures = list(training.MEASURES)
    # weights are those of the CPU at first; later, sums in another order have changed them
    np.testing.assert_allclose(history[measures][:1], expected[measures][:1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(history["reconstruction"], expected["reconstruction"], rtol=2e-2)


@gpu
def test_training_goes_on_on_a_gpu(tmp_path, monkeypatch):
    images, path = torch.randint(0, 256, (25, 3, 32, 32)).to(torch.uint8), tmp_path / "state.pt"
    _, first = corel.train_autoencoder(images, **{**TRAINING, "epochs": 1}, device="cuda", checkpoint=path)
    run_epoch, ran = training._Trainer.run_epoch, []
    monkeypatch.setattr(
        training._Trainer, "run_epoch", lambda self, epoch, *rest: (ran.append(epoch), run_epoch(self, epoch, *rest))
    )
    model, history = corel.train_autoencoder(images, **TRAINING, device="cuda", checkpoint=path)
    assert ran == [2]
    assert next(model.parameters()).is_cuda
    assert history[:2].equals(first)
    assert history["reconstruction"].iloc[-1] < first["reconstruction"].iloc[0]
