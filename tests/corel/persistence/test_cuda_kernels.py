"""The GPU kernels: interpreted here, compiled for a GPU that need not be there, and run on one if it is."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

import corel

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed on this platform")

# The interpreter is chosen when a kernel is defined, so a process of its own runs them.
INTERPRET = """
import json, math, torch, corel
from corel.persistence.kernels import triton_kernels
generator = torch.Generator().manual_seed(0)
differences, compared = [], 0
for trial in range(16):
    n, d, batch = (int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((1, 14), (1, 6), (1, 3)))
    n = trial + 1 if trial < 3 else n
    kind = ("normal", "grid", "equal", "tiny", "huge", "mixed")[trial % 6]
    x = torch.randn(batch, n, d, generator=generator, dtype=torch.float64)
    if kind == "grid":
        x = torch.randint(0, 3, (batch, n, d), generator=generator).double()
    if kind == "equal":
        x = torch.ones_like(x)
    if kind == "mixed":
        x = x * 10.0 ** torch.randint(-12, 13, (batch, n, 1), generator=generator)
    for dtype in (torch.float32, torch.float64):
        small, large = (1e-30, 1e30) if dtype == torch.float32 else (1e-200, 1e200)
        y = (x * {"tiny": small, "huge": large}.get(kind, 1.0)).to(dtype)
        for p in (1.0, 2.0, math.inf):
            expected = corel.merge_edges(y, p)
            compared += 1
            if not torch.equal(triton_kernels.merge_edges(y, p), expected):
                differences.append(["prim", kind, n, d, p, str(dtype)])
            if n > 1 and not torch.equal(torch.stack([triton_kernels.boruvka(c, p, 4, 8) for c in y]), expected):
                differences.append(["boruvka", kind, n, d, p, str(dtype)])
assert torch.equal(triton_kernels.merge_edges(y, 3.0), corel.merge_edges(y, 3.0))
# NaN, which is not looked for on a GPU: every index is in range, every point in the tree, and NaN comes out
for place in range(4):
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    x[place] = math.nan
    for p in (1.0, 2.0, math.inf):
        for edges in (triton_kernels.merge_edges(x[None], p)[0], triton_kernels.boruvka(x, p, 4, 8)):
            compared += 1
            lengths = (x[edges[:, 0]] - x[edges[:, 1]]).squeeze(1)
            if set(edges.flatten().tolist()) != {0, 1, 2, 3} or int(lengths.isnan().sum()) != 1:
                differences.append(["NaN", place, p, edges.tolist()])
print(json.dumps({"compared": compared, "differences": differences}))
"""

COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from corel.persistence.kernels import triton_kernels
found = {}
for element, kind in (("fp32", 1), ("fp32", 2), ("fp64", 0), ("fp64", 2)):
    pointer = "*" + element
    fixed = {"smallest": 2.0**-100, "down": 2.0**-80, "up": 2.0**100, "KIND": kind, "DOUBLE": element == "fp64"}
    for kernel, signature, sizes in (
        (triton_kernels._prim_kernel,
         {"points": pointer, "edges": "*i64", "lengths": pointer, "ranks": "*i32"}, {"BLOCK": 128}),
        (triton_kernels._nearest_outside_kernel,
         {"columns": pointer, "component": "*i64", "rows": "*i64", "count": "*i64", "best_length": pointer,
          "best_vertex": "*i64"}, {"ROWS": 32, "COLUMNS": 128}),
    ):
        constants = {**fixed, **sizes}
        signature = {**signature, "n": "i32", "d": "i32", **{name: "constexpr" for name in constants}}
        source = ASTSource(kernel, signature, constexprs=constants)
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
        found[f"{kernel.__name__} {element} {kind}"] = ["cubin" in built.asm, "fma.rn.f" in built.asm["ptx"]]
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
    assert found["compared"] == 96 + 24
    assert found["differences"] == []


def test_kernels_compile_for_a_gpu_without_fused_multiply_adds():
    found = run(COMPILE)
    assert len(found) == 8
    # a fused multiply-add would round lengths otherwise than the CPU does
    assert all(values == [True, False] for values in found.values()), found


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@gpu
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(16, 100, 10), (1, 1, 3), (3, 2, 1), (2, 1024, 4), (1, 1500, 10), (1, 5000, 3)])
def test_gpu_gives_the_cpus_edges(shape, dtype, p):
    points = torch.randn(shape, dtype=dtype)
    for cloud in (points, points.mul(2).round()):
        assert torch.equal(corel.merge_edges(cloud.cuda(), p).cpu(), corel.merge_edges(cloud, p))
        torch.testing.assert_close(corel.death_times(cloud.cuda(), p).cpu(), corel.death_times(cloud, p))


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
