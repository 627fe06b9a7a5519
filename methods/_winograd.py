"""3×3 convolution on the CPU by Winograd's minimal filtering, for networks that are only evaluated.

A 4×4 tile of outputs costs 36 products per pair of channels at stride 1, and 81 at stride 2, instead of 144 (Lavin
and Gray, 2016). A block of tiles goes through all three stages, transform of the input, one matrix product for each
position in the transformed tile, and transform of the output, while it is in the cache. The loops are written on
vectors of eight float32, one per channel, because the compiler gives up on vectorising loops over so many arrays
that might overlap.

The transforms compute in float32. Features and the factors of the matrix products are float32 too, or bfloat16, whose
products are summed in float32: twice as many a second where the processor has an instruction for it (AVX512-BF16), and
half the memory to go through.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from torch import Tensor

LANES = 8
#: Outputs that a block of tiles computes at a time.
PANEL = 32
#: Rows of a matrix product that are in registers at a time, and the vectors in which its columns are, by precision.
REGISTERS = {"float32": (6, 8), "bfloat16": (12, 16)}
#: Tiles in a block are a multiple of both row counts.
ROWS = 12
#: Bytes that the transforms of a block may take: they should stay in the second-level cache.
BLOCK_BYTES = 640 * 1024
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


def _broadcast(builder: Any, value: Any, lanes: int = LANES) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


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
def _store_bfloat16(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """array[index : index + 8] = value, rounded to the nearest bfloat16, of two as near to the even one"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        integers, half = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.IntType(16), LANES)

        def constant(value):  # type: ignore[no-untyped-def]
            return ir.Constant(integers, [value] * LANES)

        pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
        bits = builder.bitcast(arguments[2], integers)
        odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
        rounded = builder.add(builder.add(bits, constant(0x7FFF)), odd)
        kept = builder.trunc(builder.lshr(rounded, constant(16)), half)
        instruction = builder.store(kept, builder.bitcast(pointer, half.as_pointer()))
        instruction.align = 2
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), generate


@intrinsic
def _load_bfloat16(typing_context, array, index):  # type: ignore[no-untyped-def]
    """array[index : index + 8], bfloat16 as 16-bit integers, as float32"""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        integers, half = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.IntType(16), LANES)
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        value = builder.load(builder.bitcast(pointer, half.as_pointer()))
        value.align = 2
        bits = builder.shl(builder.zext(value, integers), ir.Constant(integers, [16] * LANES))
        return builder.bitcast(bits, _IR_VECTOR)

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


llvmlite.binding.initialize_native_asmparser()  # for the instruction in _dot


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has an instruction for sums of products of bfloat16, and the compiler may use it."""
    config: Any = numba.config
    if config.CPU_NAME or config.CPU_FEATURES is not None:
        return "+avx512bf16" in (config.CPU_FEATURES or "")
    return llvmlite.binding.get_host_cpu_features().get("avx512bf16", False)


def _dot(builder: Any, pairs: Any, other: Any, total: Any) -> Any:
    """total + the two products of each lane's pairs of bfloat16: <16 x i32>, <16 x i32>, <16 x float>."""
    vector = total.type
    if multiplies_bfloat16():
        instruction = ir.FunctionType(vector, [vector, pairs.type, pairs.type])
        return builder.asm(instruction, "vdpbf16ps $3, $2, $0", "=v,0,v,v", [total, pairs, other], False)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{vector.count}f32"
    )
    shift = ir.Constant(pairs.type, [16] * vector.count)
    mask = ir.Constant(pairs.type, [-65536] * vector.count)
    for half in (lambda value: builder.shl(value, shift), lambda value: builder.and_(value, mask)):
        factors = [builder.bitcast(half(value), vector) for value in (pairs, other)]
        total = builder.call(fma, [*factors, total])
    return total


def _product(precision: str) -> Any:
    rows, lanes = REGISTERS[precision]
    narrow = precision == "bfloat16"

    @intrinsic
    def product(typing_context, a, a0, b, b0, c, c0, inner):  # type: ignore[no-untyped-def]
        """A few rows of C = A B, which stay in registers while A and B are read once.

        A is rows × inner, B packed in two vectors for each number, or pair of bfloat16, in a row of A; C has rows of
        PANEL columns, of which two vectors are written.
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            a, a0, b, b0, c, c0, inner = arguments
            vector, integer = ir.VectorType(ir.FloatType(), lanes), inner.type
            element = ir.IntType(32) if narrow else ir.FloatType()
            a, b, c = (
                builder.bitcast(_pointer(context, builder, array_type, array, at), kind.as_pointer())
                for array_type, array, at, kind in (
                    (signature.args[0], a, a0, element),
                    (signature.args[2], b, b0, ir.VectorType(element, lanes)),
                    (signature.args[4], c, c0, ir.FloatType()),
                )
            )
            if narrow:  # from here on numbers are pairs
                inner = builder.lshr(inner, integer(1))
            sums = [cgutils.alloca_once(builder, vector) for _ in range(2 * rows)]
            for total in sums:
                builder.store(ir.Constant(vector, [0.0] * lanes), total)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f32"
            )
            with cgutils.for_range(builder, inner) as loop:
                columns = []
                for half in range(2):
                    place = builder.add(builder.mul(loop.index, integer(2)), integer(half))
                    columns.append(builder.load(builder.gep(b, [place])))
                    columns[-1].align = 4
                for row in range(rows):
                    place = builder.add(builder.mul(inner, integer(row)), loop.index)
                    value = builder.load(builder.gep(a, [place]))
                    value.align = 4
                    value = _broadcast(builder, value, lanes)
                    for half in range(2):
                        total = builder.load(sums[2 * row + half])
                        if narrow:
                            total = _dot(builder, value, columns[half], total)
                        else:
                            total = builder.call(fma, [value, columns[half], total])
                        builder.store(total, sums[2 * row + half])
            for row in range(rows):
                for half in range(2):
                    place = builder.gep(c, [integer(row * PANEL + half * lanes)])
                    stored = builder.store(
                        builder.load(sums[2 * row + half]), builder.bitcast(place, vector.as_pointer())
                    )
                    stored.align = 4
            return context.get_dummy_value()

        return types.void(a, types.intp, b, types.intp, c, types.intp, types.intp), generate

    return product


_product_float32, _product_bfloat16 = _product("float32"), _product("bfloat16")


def _multiply(a, a0, b, b0, c, c0, rows, inner):  # type: ignore[no-untyped-def]
    """C = A B: A rows × inner, B inner × PANEL as :func:`_packed` has it, C rows × PANEL; rows a multiple of ROWS."""


@overload(_multiply, inline="always")
def _multiply_float32(a, a0, b, b0, c, c0, rows, inner):  # type: ignore[no-untyped-def]
    if a.dtype != types.float32:
        return None

    def multiply(a, a0, b, b0, c, c0, rows, inner):  # type: ignore[no-untyped-def]
        for half in range(2):
            for row in range(0, rows, 6):
                to = c0 + row * PANEL + half * 16
                _product_float32(a, a0 + row * inner, b, b0 + half * 16 * inner, c, to, inner)

    return multiply


@overload(_multiply, inline="always")
def _multiply_bfloat16(a, a0, b, b0, c, c0, rows, inner):  # type: ignore[no-untyped-def]
    if a.dtype != types.int16:
        return None

    def multiply(a, a0, b, b0, c, c0, rows, inner):  # type: ignore[no-untyped-def]
        for row in range(0, rows, 12):
            _product_bfloat16(a, a0 + row * inner, b, b0, c, c0 + row * PANEL, inner)

    return multiply


def _take(array, index):  # type: ignore[no-untyped-def]
    """array[index : index + 8], from bfloat16 if the array is of 16-bit numbers."""


@overload(_take, inline="always")
def _take_vector(array, index):  # type: ignore[no-untyped-def]
    if array.dtype == types.float32:
        return lambda array, index: _load(array, index)
    return lambda array, index: _load_bfloat16(array, index)


def _keep(array, index, value):  # type: ignore[no-untyped-def]
    """array[index : index + 8] = value, rounded to bfloat16 if the array is of 16-bit numbers."""


@overload(_keep, inline="always")
def _keep_vector(array, index, value):  # type: ignore[no-untyped-def]
    if array.dtype == types.float32:
        return lambda array, index, value: _store(array, index, value)
    return lambda array, index, value: _store_bfloat16(array, index, value)


@njit(nogil=True, inline="always")
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
        _keep(out, to, _fma(four, x0, x4 - five * x2))
        _keep(out, to + step, even + odd)
        _keep(out, to + 2 * step, even - odd)
        _keep(out, to + 3 * step, difference + twice)
        _keep(out, to + 4 * step, difference - twice)
        _keep(out, to + 5 * step, _fma(four, x1, x5 - five * x3))
    else:
        x0, x1, x2 = _load(x, at), _load(x, at + 2 * gap), _load(x, at + 4 * gap)
        x3, x4 = _load(x, at + 6 * gap), _load(x, at + 8 * gap)
        odd0, odd1 = _load(x, at + gap), _load(x, at + 3 * gap)
        odd2, odd3 = _load(x, at + 5 * gap), _load(x, at + 7 * gap)
        difference = x3 - x1
        _keep(out, to, two * (x0 - x2) + difference)
        _keep(out, to + step, x3 - x2 - two * x1)
        _keep(out, to + 2 * step, x3 + two * (x1 - x2) - x2)
        _keep(out, to + 3 * step, difference)
        _keep(out, to + 4 * step, x4 - x2 - two * difference)
        _keep(out, to + 5 * step, odd0)
        _keep(out, to + 6 * step, odd1)
        _keep(out, to + 7 * step, odd2)
        _keep(out, to + 8 * step, odd3)


@njit(nogil=True, inline="always")
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
    """out = relu(scale · (x ∗ weight + residual) + shift); all arrays flat, channels last, int16 ones of bfloat16.

    Tile (i, j) of every image takes the rows windows[i] and the columns windows[j] of the input, zeros where these
    are −1. Between the stages ``before`` holds a block of tiles, (positions, ≥ block · channels), and ``after`` a panel
    of its products, (positions, ≥ block · PANEL) float32. ``residual`` may be empty.
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
                    _store(local, k * LANES, _take(x, at + channel) if at >= 0 else zero)
                for j in range(side):
                    _transform_input(stride, local, j * LANES, side * LANES, local, j * LANES, side * LANES)
                for i in range(side):
                    to = i * side * step_before + tile * channels + channel
                    _transform_input(stride, local, i * side * LANES, LANES, before, to, step_before)
        for panel in range(0, out_channels, PANEL):
            for i in range(side):
                for j in range(side):
                    # The odd inputs of stride 2 all meet the same weights, the sixth of six.
                    matrix = min(i, 5) * 6 + min(j, 5)
                    _multiply(
                        before,
                        (i * side + j) * step_before,
                        weight,
                        (matrix * out_channels + panel) * channels,
                        after,
                        (i * side + j) * step_after,
                        (tiles + ROWS - 1) // ROWS * ROWS,
                        channels,
                    )
            for tile in range(tiles):
                image, row = divmod(start + tile, rows * columns)
                row, column = divmod(row, columns)
                for channel in range(0, PANEL, LANES):
                    for j in range(side):
                        at = j * step_after + tile * PANEL + channel
                        y0, y1, y2, y3 = _transform_output(stride, after, at, side * step_after)
                        _store(local, j * LANES, y0)
                        _store(local, (side + j) * LANES, y1)
                        _store(local, (2 * side + j) * LANES, y2)
                        _store(local, (3 * side + j) * LANES, y3)
                    first = panel + channel
                    channel_scale, channel_shift = _load(scale, first), _load(shift, first)
                    for i in range(4):
                        y0, y1, y2, y3 = _transform_output(stride, local, i * side * LANES, LANES)
                        to = ((image * out_height + row * 4 + i) * out_width + column * 4) * out_channels + first
                        if residual.size > 0:
                            y0 = y0 + _take(residual, to)
                            y1 = y1 + _take(residual, to + out_channels)
                            y2 = y2 + _take(residual, to + 2 * out_channels)
                            y3 = y3 + _take(residual, to + 3 * out_channels)
                        _keep(out, to, _maximum(_fma(channel_scale, y0, channel_shift), zero))
                        _keep(out, to + out_channels, _maximum(_fma(channel_scale, y1, channel_shift), zero))
                        _keep(out, to + 2 * out_channels, _maximum(_fma(channel_scale, y2, channel_shift), zero))
                        _keep(out, to + 3 * out_channels, _maximum(_fma(channel_scale, y3, channel_shift), zero))


class WinogradConv2d:
    """A 3×3 convolution without bias, a batch normalisation in evaluation mode and ReLU, in one pass.

    Parameters
    ----------
    weight
        (out, in, 3, 3) float32; ``in`` a multiple of 8, ``out`` of 32.
    scale, shift
        (out,) float32: what the batch normalisation multiplies by and adds.
    stride
        1, with one row and column of zeros on every side, or 2, with zeros at the end alone.
    precision
        Of features, residuals and the factors in the matrix products, "float32" or "bfloat16".
    """

    def __init__(
        self, weight: Tensor, scale: Tensor, shift: Tensor, stride: int = 1, precision: str = "float32"
    ) -> None:
        self.out_channels, self.channels = weight.shape[:2]
        self.stride = stride
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        transform = FILTER_TRANSFORM[stride]
        products = np.einsum("ap,oipq,bq->abio", transform, weight.double().numpy(), transform)
        self.weight = _packed(products.reshape(36, self.channels, self.out_channels), precision)
        self.scale, self.shift = scale.numpy(), shift.numpy()

    def __call__(self, features: Tensor, residual: Tensor | None = None, windows: np.ndarray | None = None) -> Tensor:
        """Return relu(scale · (features ∗ weight + residual) + shift).

        Parameters
        ----------
        features
            (b, in, s, s) of the dtype ``precision``, channels last in memory; s a multiple of 4 · stride unless
            ``windows`` are given.
        residual
            (b, out, 4t, 4t) of the same dtype, channels last in memory, for t tiles along each side.
        windows
            (t, 6) int64 at stride 1, (t, 9) at stride 2: the rows, and the columns, that each tile of 4 × 4 outputs
            sees; −1 stands for zeros. By default those of a plain convolution, with t = s / (4 · stride).

        Returns
        -------
        torch.Tensor
            (b, out, 4t, 4t) of the same dtype, channels last in memory.
        """
        if features.dtype != self.dtype:
            raise TypeError(f"features: got {features.dtype}; accepted is {self.dtype}, the precision of the weights")
        images, _, height, width = features.shape
        if windows is None:
            windows = plain_windows(height, self.stride)
        side = 4 * len(windows)
        shape = (images, self.out_channels, side, side)
        out = torch.empty(shape, dtype=features.dtype, memory_format=torch.channels_last)
        positions = 36 if self.stride == 1 else 81
        narrow = self.dtype == torch.bfloat16
        kind = np.int16 if narrow else np.float32
        tile_bytes = positions * ((2 if narrow else 4) * self.channels + 4 * PANEL)
        block = max(BLOCK_BYTES // tile_bytes // ROWS, 1) * ROWS
        # The 16 keep a tile's values, one block apart from each other, from all falling into one set of the cache.
        _convolve(
            _flat(features),
            (images, height, width, self.channels, self.out_channels),
            self.stride,
            windows,
            self.weight,
            np.empty(0, kind) if residual is None else _flat(residual),
            self.scale,
            self.shift,
            _flat(out),
            block,
            np.zeros(positions * (block * self.channels + 16), kind),
            np.empty(positions * (block * PANEL + 16), np.float32),
        )
        return out


def _packed(matrices: np.ndarray, precision: str) -> np.ndarray:
    """(k, in, out) as the matrix products read it: float32 in panels of 16 outputs, bfloat16 of 32, in pairs of inputs.

    bfloat16 comes as int16, for NumPy has none.
    """
    count, channels, out_channels = matrices.shape
    if precision == "float32":
        panels = matrices.reshape(count, channels, out_channels // 16, 16).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(panels, dtype=np.float32).reshape(-1)
    panels = matrices.reshape(count, channels // 2, 2, out_channels // 32, 32).transpose(0, 3, 1, 4, 2)
    return torch.from_numpy(np.ascontiguousarray(panels)).bfloat16().view(torch.int16).numpy().reshape(-1)


def plain_windows(side: int, stride: int) -> np.ndarray:
    """What each tile of 4 outputs sees of a line of ``side`` inputs, (side / (4 · stride), 6 or 9) int64; −1: zero."""
    first, count = (-1, 6) if stride == 1 else (0, 9)
    seen = np.arange(0, side, 4 * stride)[:, None] + np.arange(first, first + count)
    return np.where((seen < 0) | (seen >= side), -1, seen)


def _flat(features: Tensor) -> np.ndarray:
    """The numbers of ``features`` as they lie in memory, bfloat16 as int16."""
    pixels = features.permute(0, 2, 3, 1).contiguous()
    return (pixels.view(torch.int16) if pixels.dtype == torch.bfloat16 else pixels).numpy().reshape(-1)
