"""HyperLogLog against sets: the error within its bound, unions by merging, bytes there and back."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.errors import Corruption
from sluiceway.kernels import HyperLogLog

values = st.lists(st.binary(max_size=12), max_size=300)
precision = st.integers(4, 16)


def sketch_of(some: list[bytes], bits: int) -> HyperLogLog:
    sketch = HyperLogLog(bits)
    sketch.add(some)
    return sketch


@settings(max_examples=60, deadline=None)
@given(values, values, precision)
def test_a_merge_is_the_sketch_of_the_union(a: list[bytes], b: list[bytes], bits: int) -> None:
    one, other = sketch_of(a, bits), sketch_of(b, bits)
    assert one.merge(other)
    union = sketch_of(list(set(a) | set(b)), bits)
    assert one.encode() == union.encode()
    assert one.merge(one)  # with itself, nothing changes
    assert one.encode() == union.encode()


@settings(max_examples=60, deadline=None)
@given(values, precision)
def test_bytes_come_back(some: list[bytes], bits: int) -> None:
    data = sketch_of(some, bits).encode()
    assert HyperLogLog.decode(data).encode() == data
    with pytest.raises(Corruption):
        HyperLogLog.decode(data[:-1])


@pytest.mark.parametrize("bits", [10, 12])
def test_the_error_is_within_its_bound(bits: int) -> None:
    """Of 60 sets a size: root mean square within 1.3 standard errors, none beyond five."""
    noise, standard = random.Random(bits), 1.04 / math.sqrt(1 << bits)
    for size in (1, 10, 100, 1_000, 3_000, 10_000, 30_000):
        errors = []
        for _ in range(60):
            held = {noise.randbytes(9) for _ in range(size)}
            errors.append(sketch_of(list(held), bits).estimate() / len(held) - 1)
        rms = math.sqrt(sum(error**2 for error in errors) / len(errors))
        assert rms <= 1.3 * standard, (size, rms, standard)
        assert max(map(abs, errors)) <= 5 * standard, size
