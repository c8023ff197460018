"""Arithmetic and comparison of floats, elementwise, and binary operators with a scalar side."""

from collections.abc import Callable

import numpy as np

from sluiceway.query.interface import Bools, Floats
from sluiceway.query.promql.syntax import COMPARISONS
from sluiceway.query.promql.values import Vector

ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    # C's fmod: the sign is the dividend's, as in Go.
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARE: dict[str, Callable[[Floats, Floats], Bools]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def scalar_with_scalar(operator: str, left: Floats, right: Floats) -> Floats:
    if operator in COMPARISONS:
        return COMPARE[operator](left, right).astype(np.float64)
    return ARITHMETIC[operator](left, right)


def vector_with_scalar(
    operator: str, vector: Vector, scalar: Floats, return_bool: bool, swapped: bool
) -> Vector:
    """`vector operator scalar`, or the other way round where `swapped`. `scalar` is [T]."""
    left, right = (scalar, vector.values) if swapped else (vector.values, scalar)
    if operator not in COMPARISONS:
        return vector.with_values(ARITHMETIC[operator](left, right))
    held = COMPARE[operator](left, right)
    if return_bool:
        return vector.with_values(held.astype(np.float64))
    return vector.filtered(vector.present & held)
