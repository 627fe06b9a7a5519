"""3×3 convolution on the CPU by Winograd's minimal filtering, for networks that are only evaluated.

A 4×4 tile of outputs costs 36 products per pair of channels at stride 1, and 81 at stride 2, instead of 144 (Lavin
and Gray, 2016). A block of tiles goes through all three stages, transform of the input, one matrix product for each
position in the transformed tile, and transform of the output, while it is in the cache. The loops are written on
vectors of eight float32, one per channel, because the compiler gives up on vectorising loops over so many arrays
that might overlap.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from torch import Tensor

LANES = 8
#: Tiles in a block: their transforms (36 values per tile and channel) should stay in the second-level cache.
BLOCK = 48
#: Transforms of the filter by stride: F(4, 3) with the points 0, ±1, ±2 and ∞; and F(4, 2) with 0, ±1, 2 and ∞ for
#: the outer weights, beside the middle weight as it is.
FILTER_TRANSFORM = {
    1: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
    2: np.array(
        [[1 / 2, 0, 0], [-1 / 2, 0, -1 / 2], [-1 / 6, 0, 1 / 6], [1 / 6, 0, 1 / 3], [0, 0, 1], [0, 1, 0]],
    ),
}

# --- Vectors of eight float32 in Numba ---------------------------------------------------------------------------


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x8")


_vector = _Vector()
_IR_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _IR_VECTOR)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _broadcast(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_IR_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


@intrinsic
def _load(typing_context, array, index):  # type: ignore[no-untyped-def]
    """array[index : index + 8]"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        value = builder.load(builder.bitcast(pointer, _IR_VECTOR.as_pointer()))
        value.align = 4
        return value

    return _vector(array, types.intp), generate


@intrinsic
def _store(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """array[index : index + 8] = value"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
        instruction = builder.store(arguments[2], builder.bitcast(pointer, _IR_VECTOR.as_pointer()))
        instruction.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), generate


@intrinsic
def _load_one(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Eight times array[index]"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _broadcast(builder, builder.load(_pointer(context, builder, signature.args[0], *arguments)))

    return _vector(array, types.intp), generate


@intrinsic
def _constant(typing_context, value):  # type: ignore[no-untyped-def]
    """Eight times value"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _broadcast(builder, arguments[0])

    return _vector(types.float32), generate


@intrinsic
def _fma(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    """a · b + c"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        function_type = ir.FunctionType(_IR_VECTOR, [_IR_VECTOR] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.fma.v8f32"), arguments)

    return _vector(_vector, _vector, _vector), generate


@intrinsic
def _maximum(typing_context, a, b):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # Unordered, so that NaN stays NaN, as in torch.
        return builder.select(builder.fcmp_unordered(">", *arguments), *arguments)

    return _vector(_vector, _vector), generate


def _operator(python_operator: Callable[..., Any], instruction: str) -> None:
    @intrinsic
    def apply(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return getattr(builder, instruction)(*arguments)

        return _vector(_vector, _vector), generate

    @overload(python_operator, inline="always")
    def implementation(a, b):  # type: ignore[no-untyped-def]
        if isinstance(a, _Vector) and isinstance(b, _Vector):
            return lambda a, b: apply(a, b)
        return None


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")

# --- The convolution ---------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _multiply(a, a0, b, b0, c, c0, rows, inner, columns):  # type: ignore[no-untyped-def]
    """C = A B: A rows × inner, B packed in panels of 16 columns, C rows × columns; rows a multiple of 6.

    Six rows by sixteen columns of C are in registers while A and B are read once.
    """
    zero = _constant(np.float32(0))
    for panel in range(columns // 16):
        for row in range(0, rows, 6):
            a_0 = a0 + row * inner
            a_1, a_2, a_3, a_4, a_5 = a_0 + inner, a_0 + 2 * inner, a_0 + 3 * inner, a_0 + 4 * inner, a_0 + 5 * inner
            at = b0 + panel * inner * 16
            c00 = c01 = c10 = c11 = c20 = c21 = c30 = c31 = c40 = c41 = c50 = c51 = zero
            for k in range(inner):
                left, right = _load(b, at), _load(b, at + 8)
                at += 16
                value = _load_one(a, a_0 + k)
                c00, c01 = _fma(value, left, c00), _fma(value, right, c01)
                value = _load_one(a, a_1 + k)
                c10, c11 = _fma(value, left, c10), _fma(value, right, c11)
                value = _load_one(a, a_2 + k)
                c20, c21 = _fma(value, left, c20), _fma(value, right, c21)
                value = _load_one(a, a_3 + k)
                c30, c31 = _fma(value, left, c30), _fma(value, right, c31)
                value = _load_one(a, a_4 + k)
                c40, c41 = _fma(value, left, c40), _fma(value, right, c41)
                value = _load_one(a, a_5 + k)
                c50, c51 = _fma(value, left, c50), _fma(value, right, c51)
            to = c0 + row * columns + panel * 16
            _store(c, to, c00)
            _store(c, to + 8, c01)
            _store(c, to + columns, c10)
            _store(c, to + columns + 8, c11)
            _store(c, to + 2 * columns, c20)
            _store(c, to + 2 * columns + 8, c21)
            _store(c, to + 3 * columns, c30)
            _store(c, to + 3 * columns + 8, c31)
            _store(c, to + 4 * columns, c40)
            _store(c, to + 4 * columns + 8, c41)
            _store(c, to + 5 * columns, c50)
            _store(c, to + 5 * columns + 8, c51)


@njit(nogil=True, cache=True)
def _transform_input(stride, x, at, gap, out, to, step):  # type: ignore[no-untyped-def]
    """Transform one line of a tile's input, 6 vectors at stride 1 and 9 at stride 2.

    At stride 2, the even ones meet the filter's two outer weights, which is F(4, 2), and the odd ones its middle one.
    """
    two = _constant(np.float32(2))
    if stride == 1:
        four, five = _constant(np.float32(4)), _constant(np.float32(5))
        x0, x1, x2 = _load(x, at), _load(x, at + gap), _load(x, at + 2 * gap)
        x3, x4, x5 = _load(x, at + 3 * gap), _load(x, at + 4 * gap), _load(x, at + 5 * gap)
        even, odd, difference, twice = x4 - four * x2, x3 - four * x1, x4 - x2, two * (x3 - x1)
        _store(out, to, _fma(four, x0, x4 - five * x2))
        _store(out, to + step, even + odd)
        _store(out, to + 2 * step, even - odd)
        _store(out, to + 3 * step, difference + twice)
        _store(out, to + 4 * step, difference - twice)
        _store(out, to + 5 * step, _fma(four, x1, x5 - five * x3))
    else:
        x0, x1, x2 = _load(x, at), _load(x, at + 2 * gap), _load(x, at + 4 * gap)
        x3, x4 = _load(x, at + 6 * gap), _load(x, at + 8 * gap)
        odd0, odd1 = _load(x, at + gap), _load(x, at + 3 * gap)
        odd2, odd3 = _load(x, at + 5 * gap), _load(x, at + 7 * gap)
        difference = x3 - x1
        _store(out, to, two * (x0 - x2) + difference)
        _store(out, to + step, x3 - x2 - two * x1)
        _store(out, to + 2 * step, x3 + two * (x1 - x2) - x2)
        _store(out, to + 3 * step, difference)
        _store(out, to + 4 * step, x4 - x2 - two * difference)
        _store(out, to + 5 * step, odd0)
        _store(out, to + 6 * step, odd1)
        _store(out, to + 7 * step, odd2)
        _store(out, to + 8 * step, odd3)


@njit(nogil=True, cache=True)
def _transform_output(stride, y, at, gap):  # type: ignore[no-untyped-def]
    """Return the four outputs of a line of products, 6 vectors at stride 1 and 9 at stride 2."""
    two, four, eight = _constant(np.float32(2)), _constant(np.float32(4)), _constant(np.float32(8))
    y0, y1, y2 = _load(y, at), _load(y, at + gap), _load(y, at + 2 * gap)
    y3, y4 = _load(y, at + 3 * gap), _load(y, at + 4 * gap)
    total, difference = y1 + y2, y1 - y2
    if stride == 1:
        total2, difference2 = y3 + y4, y3 - y4
        return (
            y0 + total + total2,
            _fma(two, difference2, difference),
            _fma(four, total2, total),
            _fma(eight, difference2, difference + _load(y, at + 5 * gap)),
        )
    return (
        y0 + total + y3 + _load(y, at + 5 * gap),
        _fma(two, y3, difference + _load(y, at + 6 * gap)),
        _fma(four, y3, total + _load(y, at + 7 * gap)),
        _fma(eight, y3, difference + y4 + _load(y, at + 8 * gap)),
    )


@njit(nogil=True, cache=True)
def _convolve(x, shape, stride, windows, weight, residual, scale, shift, out, block, before, after):  # type: ignore[no-untyped-def]
    """out = relu(scale · (x ∗ weight + residual) + shift); all arrays flat, channels last.

    Tile (i, j) of every image takes the rows windows[i] and the columns windows[j] of the input, zeros where these
    are −1. ``before`` and ``after`` hold a block of tiles between the stages, (positions, ≥ block · channels).
    ``residual`` may be empty.
    """
    images, height, width, channels, out_channels = shape
    side = 6 if stride == 1 else 9
    rows = columns = len(windows)
    out_height, out_width = 4 * rows, 4 * columns
    step_before, step_after = before.size // side**2, after.size // side**2
    zero = _constant(np.float32(0))
    local = np.empty(side**2 * LANES, np.float32)
    places = np.empty(side**2, np.int64)
    for start in range(0, images * rows * columns, block):
        tiles = min(block, images * rows * columns - start)
        for tile in range(tiles):
            image, row = divmod(start + tile, rows * columns)
            row, column = divmod(row, columns)
            for i in range(side):
                y = windows[row, i]
                for j in range(side):
                    z = windows[column, j]
                    inside = y >= 0 and z >= 0
                    places[i * side + j] = ((image * height + y) * width + z) * channels if inside else -1
            for channel in range(0, channels, LANES):
                for k in range(side**2):
                    at = places[k]
                    _store(local, k * LANES, _load(x, at + channel) if at >= 0 else zero)
                for j in range(side):
                    _transform_input(stride, local, j * LANES, side * LANES, local, j * LANES, side * LANES)
                for i in range(side):
                    to = i * side * step_before + tile * channels + channel
                    _transform_input(stride, local, i * side * LANES, LANES, before, to, step_before)
        for i in range(side):
            for j in range(side):
                # The odd inputs of stride 2 all meet the same weights, the sixth of six.
                matrix = min(i, 5) * 6 + min(j, 5)
                _multiply(
                    before,
                    (i * side + j) * step_before,
                    weight,
                    matrix * channels * out_channels,
                    after,
                    (i * side + j) * step_after,
                    (tiles + 5) // 6 * 6,
                    channels,
                    out_channels,
                )
        for tile in range(tiles):
            image, row = divmod(start + tile, rows * columns)
            row, column = divmod(row, columns)
            for channel in range(0, out_channels, LANES):
                for j in range(side):
                    at = j * step_after + tile * out_channels + channel
                    y0, y1, y2, y3 = _transform_output(stride, after, at, side * step_after)
                    _store(local, j * LANES, y0)
                    _store(local, (side + j) * LANES, y1)
                    _store(local, (2 * side + j) * LANES, y2)
                    _store(local, (3 * side + j) * LANES, y3)
                channel_scale, channel_shift = _load(scale, channel), _load(shift, channel)
                for i in range(4):
                    y0, y1, y2, y3 = _transform_output(stride, local, i * side * LANES, LANES)
                    to = ((image * out_height + row * 4 + i) * out_width + column * 4) * out_channels + channel
                    if residual.size > 0:
                        y0 = y0 + _load(residual, to)
                        y1 = y1 + _load(residual, to + out_channels)
                        y2 = y2 + _load(residual, to + 2 * out_channels)
                        y3 = y3 + _load(residual, to + 3 * out_channels)
                    _store(out, to, _maximum(_fma(channel_scale, y0, channel_shift), zero))
                    _store(out, to + out_channels, _maximum(_fma(channel_scale, y1, channel_shift), zero))
                    _store(out, to + 2 * out_channels, _maximum(_fma(channel_scale, y2, channel_shift), zero))
                    _store(out, to + 3 * out_channels, _maximum(_fma(channel_scale, y3, channel_shift), zero))


class WinogradConv2d:
    """A 3×3 convolution without bias, a batch normalisation in evaluation mode and ReLU, in one pass.

    Parameters
    ----------
    weight
        (out, in, 3, 3) float32; ``in`` a multiple of 8, ``out`` of 16.
    scale, shift
        (out,) float32: what the batch normalisation multiplies by and adds.
    stride
        1, with one row and column of zeros on every side, or 2, with zeros at the end alone.
    """

    def __init__(self, weight: Tensor, scale: Tensor, shift: Tensor, stride: int = 1) -> None:
        self.out_channels, self.channels = weight.shape[:2]
        self.stride = stride
        transform = FILTER_TRANSFORM[stride]
        products = np.einsum("ap,oipq,bq->abio", transform, weight.double().numpy(), transform)
        panels = products.reshape(36, self.channels, self.out_channels // 16, 16).transpose(0, 2, 1, 3)
        self.weight = np.ascontiguousarray(panels, dtype=np.float32).reshape(-1)
        self.scale, self.shift = scale.numpy(), shift.numpy()

    def __call__(self, features: Tensor, residual: Tensor | None = None, windows: np.ndarray | None = None) -> Tensor:
        """Return relu(scale · (features ∗ weight + residual) + shift).

        Parameters
        ----------
        features
            (b, in, s, s) float32, channels last in memory; s a multiple of 4 · stride unless ``windows`` are given.
        residual
            (b, out, 4t, 4t) float32, channels last in memory, for t tiles along each side.
        windows
            (t, 6) int64 at stride 1, (t, 9) at stride 2: the rows, and the columns, that each tile of 4 × 4 outputs
            sees; −1 stands for zeros. By default those of a plain convolution, with t = s / (4 · stride).

        Returns
        -------
        torch.Tensor
            (b, out, 4t, 4t), channels last in memory.
        """
        images, _, height, width = features.shape
        if windows is None:
            windows = plain_windows(height, self.stride)
        side = 4 * len(windows)
        out = torch.empty((images, self.out_channels, side, side), memory_format=torch.channels_last)
        # The 16 keep a tile's values, one block apart from each other, from all falling into one set of the cache.
        positions = 36 if self.stride == 1 else 81
        _convolve(
            _flat(features),
            (images, height, width, self.channels, self.out_channels),
            self.stride,
            windows,
            self.weight,
            np.empty(0, np.float32) if residual is None else _flat(residual),
            self.scale,
            self.shift,
            _flat(out),
            BLOCK,
            np.zeros(positions * (BLOCK * self.channels + 16), np.float32),
            np.empty(positions * (BLOCK * self.out_channels + 16), np.float32),
        )
        return out


def plain_windows(side: int, stride: int) -> np.ndarray:
    """What each tile of 4 outputs sees of a line of ``side`` inputs, (side / (4 · stride), 6 or 9) int64; −1: zero."""
    first, count = (-1, 6) if stride == 1 else (0, 9)
    seen = np.arange(0, side, 4 * stride)[:, None] + np.arange(first, first + count)
    return np.where((seen < 0) | (seen >= side), -1, seen)


def _flat(features: Tensor) -> np.ndarray:
    return features.permute(0, 2, 3, 1).contiguous().numpy().reshape(-1)
