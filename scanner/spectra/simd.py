"""Vectors of numbers as values of compiled code, which LLVM keeps in vector registers.

numba knows scalars and arrays only, and whether a loop over them becomes vector code is LLVM's guess. A
kernel that must hold its sums in registers says so with these: `+ - * /` on vectors of float64, loads, stores
and choices. A product may be fused with a sum (IEEE's fma); nothing else that IEEE forbids.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import types

if TYPE_CHECKING:
    from numpy.typing import NDArray

_F = TypeVar("_F", bound=Callable[..., Any])
_FUSED = ("contract",)
_LANE = ir.IntType(32)
_ELEMENTS: dict[Any, Any] = {
    types.float64: ir.DoubleType(),
    types.int64: ir.IntType(64),
    types.boolean: ir.IntType(1),
}

WIDE_REGISTERS = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
"""Whether eight float64 numbers fit one register, of which there are 32."""

inlined = numba.njit(nogil=True, error_model="numpy")
"""For the parts of a compiled function."""


def _intrinsic(function: Callable[..., Any]) -> Any:
    return extending.intrinsic(function)


def compiled(signature: str) -> Callable[[_F], _F]:
    """For a function that Python calls: compiled for one signature, and kept on disk."""
    return cast(Callable[[_F], _F], numba.njit(signature, cache=True, nogil=True, error_model="numpy"))


class Vector(Protocol):
    """Numbers side by side."""

    def __add__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...
    def __mul__(self, other: Self, /) -> Self: ...


class _VectorType(types.Type):
    def __init__(self, width: int, element: types.Type = types.float64) -> None:
        self.width = width
        self.values = ir.VectorType(_ELEMENTS[element], width)
        super().__init__(name=f"Vector({width} x {element})")


@extending.register_model(_VectorType)
class _VectorModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, vector: _VectorType) -> None:
        super().__init__(manager, vector, vector.values)  # type: ignore[no-untyped-call]


def _operation(function: Any, instruction: str) -> None:
    """Give `function` of two vectors of float64 a meaning in compiled code."""

    @_intrinsic
    def applied(_: Any, x: Any, y: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=_FUSED)

        return x(x, y), code

    @extending.overload(function)
    def on_vectors(x: Any, y: Any) -> Any:
        def meaning(x: Any, y: Any) -> Any:
            return applied(x, y)

        return meaning if isinstance(x, _VectorType) and x == y else None


_operation(operator.add, "fadd")
_operation(operator.iadd, "fadd")
_operation(operator.sub, "fsub")
_operation(operator.mul, "fmul")
_operation(operator.truediv, "fdiv")


def _pointer(context: Any, builder: Any, array: Any, data: Any, at: Any, vector: _VectorType) -> Any:
    place = builder.gep(context.make_array(array)(context, builder, data).data, [at])
    return builder.bitcast(place, vector.values.as_pointer())


def loading(width: int, element: types.Type = types.float64) -> Callable[[NDArray[Any], np.uintp], Any]:
    """Compiled: load(array, place), the `width` elements of a contiguous array from a flat place on."""
    vector = _VectorType(width, element)

    @_intrinsic
    def load(_: Any, array: Any, place: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data, at = arguments
            found = builder.load(_pointer(context, builder, array, data, at, vector))
            found.align = 8
            return found

        return vector(array, types.uintp), code

    return cast(Callable[["NDArray[Any]", "np.uintp"], Any], load)


@_intrinsic
def store(_: Any, array: Any, place: Any, x: Any) -> Any:
    """Put a vector into a contiguous array from a flat place on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, at, vector = arguments
        written = builder.store(vector, _pointer(context, builder, array, data, at, x))
        written.align = 8
        return context.get_dummy_value()

    return types.void(array, types.uintp, x), code


def loading_rows(width: int, element: types.Type = types.float64) -> Callable[[NDArray[Any], int], Any]:
    """Compiled: row(a, i), the `width` elements a[i]."""
    load = loading(width, element)

    @inlined
    def row(a: NDArray[Any], i: int) -> Any:
        return load(a, np.uintp(i * width))

    return cast(Callable[["NDArray[Any]", int], Any], row)


def storing_rows(width: int) -> Callable[[NDArray[np.float64], int, Any], None]:
    """Compiled: set_row(a, i, x) puts `width` numbers at a[i]."""

    @inlined
    def set_row(a: NDArray[np.float64], i: int, x: Any) -> None:
        store(a, np.uintp(i * width), x)

    return cast(Callable[["NDArray[np.float64]", int, Any], None], set_row)


@_intrinsic
def fetch(_: Any, array: Any, place: Any) -> Any:
    """Ask for the line of the cache that a flat place of a contiguous array is in, and wait for nothing."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, at = arguments
        line = builder.gep(context.make_array(array)(context, builder, data).data, [at])
        line = builder.bitcast(line, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [line.type, _LANE, _LANE, _LANE])
        asked = builder.module.declare_intrinsic("llvm.prefetch", (line.type,), kind)
        builder.call(asked, [line, _LANE(0), _LANE(3), _LANE(1)])
        return context.get_dummy_value()

    return types.void(array, types.uintp), code


def filling(width: int, element: types.Type = types.float64) -> Callable[[float], Any]:
    """Compiled: all_of(x), the same number `width` times."""
    vector = _VectorType(width, element)

    @_intrinsic
    def all_of(_: Any, x: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            nothing = ir.Constant(vector.values, ir.Undefined)
            one = builder.insert_element(nothing, arguments[0], _LANE(0))
            return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_LANE, width), [0] * width))

        return vector(element), code

    return cast(Callable[[float], Any], all_of)


def _comparison(instruction: str, relation: str) -> Callable[[Any, Any], Any]:
    @_intrinsic
    def holds(_: Any, x: Any, y: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(relation, *arguments)

        return _VectorType(x.width, types.boolean)(x, y), code

    return cast(Callable[[Any, Any], Any], holds)


exceeds = _comparison("fcmp_ordered", ">")
"""Compiled: which numbers of x are above those of y."""
reaches = _comparison("icmp_signed", ">=")
"""Compiled: which integers of x are at least those of y."""


@_intrinsic
def both(_: Any, x: Any, y: Any) -> Any:
    """Where two conditions hold."""
    return x(x, y), lambda context, builder, signature, arguments: builder.and_(*arguments)


@_intrinsic
def either(_: Any, on: Any, x: Any, y: Any) -> Any:
    """Of x where `on`, else of y."""
    return x(on, x, y), lambda context, builder, signature, arguments: builder.select(*arguments)


@_intrinsic
def total(_: Any, x: Any) -> Any:
    """Sum of a vector's numbers, by halves."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (rest,), width = arguments, x.width
        while width > 1:
            width //= 2
            low, high = (ir.Constant(ir.VectorType(_LANE, width), [*range(k, k + width)]) for k in (0, width))
            rest = builder.fadd(
                builder.shuffle_vector(rest, rest, low), builder.shuffle_vector(rest, rest, high)
            )
        return builder.extract_element(rest, _LANE(0))

    return types.float64(x), code
