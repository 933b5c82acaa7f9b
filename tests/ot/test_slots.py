"""Slots: values at roots of unity by definition, products slot by slot, alike in C and numpy."""

from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Field
from mpc.ot.slots import Slots, _power, _root, _times, slots_of
from tests.ot.test_lattice import coins, integers, wrapped


@pytest.fixture(params=[F127, F61], ids=str)
def field(request: pytest.FixtureRequest) -> Field:
    found: Field = request.param
    return found


@pytest.fixture(params=["c", "numpy"])
def make(request: pytest.FixtureRequest) -> Any:
    """What makes slots over the C loops or their twin."""
    if request.param == "c" and F127.backend != "c":
        pytest.skip("the C loops were not built")

    def made(field: Field, degree: int) -> Slots:
        slots = Slots(field, degree)
        if request.param == "numpy":
            slots.__dict__["_loops"] = None
        return slots

    return made


def edged(field: Field, rng: np.random.Generator, *shape: int) -> Any:
    """Elements, a third of them at the edges of the field."""
    x = coins().stream().elements(field, shape)
    for value in (0, 1, -1, field.half, -field.half):
        x[rng.random(shape) < 0.07] = field.encode(value)
    return x


def numbers(field: Field, values: Any) -> list[tuple[int, int]]:
    p = field.modulus
    real, imaginary = (integers(field, part) for part in values)
    return [(u % p, v % p) for u, v in zip(real, imaginary, strict=True)]


@pytest.mark.parametrize("degree", [4, 8, 64])
def test_values_are_those_at_roots_of_unity(field: Field, make: Any, rng: np.random.Generator, degree: int) -> None:
    """Each power z^(4j + 1) once; f at the conjugates of these is conjugate, so that nothing of f is left out."""
    p, f = field.modulus, edged(field, rng, degree)
    z = _root(degree, p)
    assert _power(z, degree, p) == (p - 1, 0)
    expected = []
    for j in range(degree // 2):
        at, power, total = _power(z, 4 * j + 1, p), (1, 0), (0, 0)
        for coefficient in integers(field, f):
            total = (total[0] + coefficient * power[0]) % p, (total[1] + coefficient * power[1]) % p
            power = _times(power, at, p)
        expected.append(total)
    assert sorted(numbers(field, make(field, degree).values(f))) == sorted(expected)


@pytest.mark.parametrize("degree", [4, 16, 64])
def test_products_are_those_of_slots(field: Field, make: Any, rng: np.random.Generator, degree: int) -> None:
    slots, p = make(field, degree), field.modulus
    x, y = (edged(field, rng, 2, degree // 2) for _ in range(2))
    f, g = (integers(field, slots.polynomial(values)) for values in (x, y))
    product = [v % p for v in wrapped(f, g)]
    found = slots.values(field.encode([v - p if v > field.half else v for v in product]))
    expected = [_times(u, v, p) for u, v in zip(numbers(field, x), numbers(field, y), strict=True)]
    assert numbers(field, found) == expected


@pytest.mark.parametrize("degree", [4, 256, 16384])
def test_there_and_back(field: Field, make: Any, rng: np.random.Generator, degree: int) -> None:
    slots = make(field, degree)
    f = edged(field, rng, degree)
    largest = field.encode([-1] * degree)
    for x in (f, largest, field.zeros(degree)):
        values = slots.values(x)
        assert values.shape == (2, slots.count)
        assert not field._kernels.noncanonical(values.reshape(-1))
        assert field.equal(slots.polynomial(values), x).all()
        assert field.equal(slots.values(slots.polynomial(x.reshape(2, -1))), x.reshape(2, -1)).all()


def test_loops_are_the_same(field: Field, rng: np.random.Generator) -> None:
    if field.backend != "c":
        pytest.skip("the C loops were not built")
    slots, x = slots_of(field, 2048), edged(field, rng, 2048)
    assert field.equal(slots.values(x).reshape(-1), slots._evaluate(x, *slots._roots)).all()
    assert field.equal(slots.polynomial(x.reshape(2, -1)), slots._interpolate(x, *slots._roots)).all()


def test_operands_are_left_as_they_are(field: Field, make: Any, rng: np.random.Generator) -> None:
    slots, x = make(field, 64), edged(field, rng, 64)
    kept = x.copy()
    slots.values(x)
    slots.polynomial(x.reshape(2, 32))
    assert field.equal(x, kept).all()


def test_loops_refuse_other_shapes(field: Field) -> None:
    if field.backend != "c":
        pytest.skip("the C loops were not built")
    slots = slots_of(field, 64)
    loops, (cosines, sines) = slots._loops, slots._roots
    assert loops is not None
    for loop in loops:
        for length, count in ((64, 16), (48, 24), (2, 1), (65, 32)):
            with pytest.raises(ValueError, match="slots are those"):
                loop(field.zeros(length), cosines[:count], sines[:count])
        with pytest.raises(ValueError, match="one piece"):
            loop(field.zeros(64), cosines[::-1], sines)
        with pytest.raises(ValueError, match="mismatch"):
            loop(field.zeros(64), cosines[:16], sines)


def test_other_fields_and_degrees_have_none() -> None:
    for other, degree in ((GF(7), 16), (F127, 2), (F127, 12), (F61, 1 << 61)):
        with pytest.raises(ValueError, match="no slots"):
            Slots(other, degree)
    assert repr(slots_of(F61, 64)) == "Slots(F61, 64)"
    assert slots_of(F61, 64) is slots_of(F61, 64)
