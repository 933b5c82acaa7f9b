"""Fields with MACs do what the fields without do, and keep every MAC right."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Field, RangeError, SecurityError
from mpc.authenticated import Authenticated
from mpc.authenticated_words import AuthenticatedWords, authenticated
from mpc.indices import R32
from mpc.prg import Prg
from mpc.words import W64

PARTIES = 3
FIELDS = [F127, F61, GF(101)]
STREAM = Prg(b"fields with MACs under some keys").stream("draws")


class World:
    """All parties' summands of one key, and of values."""

    def __init__(self, base: Field) -> None:
        self.base = base
        keys = [STREAM.elements(base, (1,)).reshape(()) for _ in range(PARTIES)]
        self.alpha = functools.reduce(base.add, keys)
        self.fields = [authenticated(base, key) for key in keys]

    def shared(self, values: Any) -> list[Any]:
        macs = self.fields[0].__class__.public_mac(authenticated(self.base, self.alpha), values)
        drawn = [
            (STREAM.elements(self.base, values.shape), STREAM.elements(self.base, macs.shape))
            for _ in range(PARTIES - 1)
        ]
        last = values, macs
        for value, mac in drawn:
            last = self.base.sub(last[0], value), self.base.sub(last[1], mac)
        return [field.joined(*pair) for field, pair in zip(self.fields, [*drawn, last], strict=True)]

    def opened(self, summands: list[Any]) -> Any:
        """Add up, and check that the MACs are right."""
        values = functools.reduce(self.base.add, [x["value"] for x in summands])
        macs = functools.reduce(self.base.add, [x["mac"] for x in summands])
        whole = authenticated(self.base, self.alpha)
        assert self.base.equal(macs, whole.public_mac(values)).all()
        return values

    def local(self, operation: Callable[..., Any], *operands: Any) -> list[Any]:
        rows = zip(*[x if isinstance(x, list) else [x] * PARTIES for x in operands], strict=True)
        return [operation(field, rank, *row) for rank, (field, row) in enumerate(zip(self.fields, rows, strict=True))]


def drawn(base: Field, *shape: int) -> Any:
    return STREAM.elements(base, shape)


@pytest.fixture(params=FIELDS, ids=str)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_linear_operations(world: World) -> None:
    base = world.base
    x, y, public = drawn(base, 4, 3), drawn(base, 4, 3), drawn(base, 4, 3)
    X, Y = world.shared(x), world.shared(y)
    row, whole = drawn(base, 3), np.arange(-1, 2)
    matrix = drawn(base, 3, 2)
    cases: list[tuple[Callable[..., Any], list[Any], Any]] = [
        (lambda f, _, a, b: f.add(a, b), [X, Y], base.add(x, y)),
        (lambda f, _, a, b: f.sub(a, b), [X, Y], base.sub(x, y)),
        (lambda f, _, a: f.neg(a), [X], base.neg(x)),
        (lambda f, _, a, p: f.mul(a, p), [X, public], base.mul(x, public)),
        (lambda f, _, a, p: f.mul(p, a), [X, row], base.mul(x, row)),
        (lambda f, _, a: f.sum(a, axis=0), [X], base.sum(x, axis=0)),
        (lambda f, _, a: f.sum(a), [X], base.sum(x)),
        (lambda f, _, a: f.scale_int(a, -7), [X], base.scale_int(x, -7)),
        (lambda f, _, a: f.dot_int(a, whole), [X], base.dot_int(x, whole)),
        (lambda f, _, a, p: f.matmul(a, p), [X, matrix], base.matmul(x, matrix)),
        (lambda f, _, a, p: f.matmul(p, a), [X, public.T], base.matmul(public.T, x)),
        (lambda f, r, a, p: f.add_public(a, p, leads=r == 0), [X, public], base.add(x, public)),
        (lambda f, r, a, p: f.add_public(a, p, leads=r == 0), [X, row], base.add(x, row)),
    ]
    for operation, operands, right in cases:
        assert base.equal(world.opened(world.local(operation, *operands)), right).all()


def test_public_values_are_those_of_the_base(world: World) -> None:
    field, base = world.fields[0], world.base
    x, y = drawn(base, 5), drawn(base, 5)
    assert base.equal(field.add(x, y), base.add(x, y)).all()
    assert base.equal(field.mul(x, y), base.mul(x, y)).all()
    assert base.equal(field.encode([1, -2]), base.encode([1, -2])).all()
    assert np.array_equal(field.decode(field.encode([1, -2])), [1, -2])
    assert (field.modulus, field.half, field.bits, field.name) == (base.modulus, base.half, base.bits, base.name)
    with pytest.raises(RangeError):
        field.encode([base.half + 1])


@pytest.mark.parametrize("shapes", [((5,), (5,)), ((2, 3), (3,)), ((1,), (4, 1))])
def test_products(world: World, shapes: Any) -> None:
    base = world.base
    d, e = drawn(base, *shapes[0]), drawn(base, *shapes[1])
    a, b = drawn(base, *shapes[0]), drawn(base, *shapes[1])
    parts = [world.shared(a), world.shared(b), world.shared(base.mul(a, b))]
    done = world.local(lambda f, r, *abc: f.beaver(d, e, *abc, lead=r == 0), *parts)
    assert base.equal(world.opened(done), base.mul(base.add(d, a), base.add(e, b))).all()


@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 2, 3), (2, 3, 1))])
def test_matrix_products(world: World, shapes: Any) -> None:
    base = world.base
    d, e = drawn(base, *shapes[0]), drawn(base, *shapes[1])
    a, b = drawn(base, *shapes[0]), drawn(base, *shapes[1])
    parts = [world.shared(a), world.shared(b), world.shared(base.matmul(a, b))]
    done = world.local(lambda f, r, *abc: f.beaver_matmul(d, e, *abc, lead=r == 0), *parts)
    assert base.equal(world.opened(done), base.matmul(base.add(d, a), base.add(e, b))).all()


def test_what_is_no_local_operation(world: World) -> None:
    field, x, public = world.fields[0], world.shared(drawn(world.base, 3))[0], drawn(world.base, 3)
    for wrong in (
        lambda: field.mul(x, x),
        lambda: field.matmul(x, x),
        lambda: field.add(x, public),
        lambda: field.sub(public, x),
        lambda: field.add_public(public, public, leads=True),
        lambda: field.shift_round(x, 3),
        lambda: field.decode(x),
        lambda: field.parts(public),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_the_wire_form(world: World) -> None:
    field, x = world.fields[0], world.shared(drawn(world.base, 7))[0]
    data = field.to_bytes(x)
    assert len(data) == 7 * field.element_bytes
    back = field.from_bytes(data, (7,))
    assert field.is_canonical(back)
    for part in ("value", "mac"):
        assert world.base.equal(back[part], x[part]).all()
    with pytest.raises(ValueError):
        field.from_bytes(bytes(data)[:-1], (7,))
    with pytest.raises(ValueError):
        field.from_bytes(b"\xff" * len(data), (7,))


def test_the_key_does_not_show(world: World) -> None:
    field = world.fields[0]
    assert repr(field) == str(field) == world.base.name
    with pytest.raises(TypeError):
        field.__reduce__()


def test_indices_have_no_macs() -> None:
    with pytest.raises(SecurityError, match="R32"):
        authenticated(R32, R32.zeros(()))


# ---- packed bits ----------------------------------------------------------------------------------------------------


def test_packed_bits() -> None:
    world = World(W64)
    x, y, public = drawn(W64, 3, 2), drawn(W64, 3, 2), drawn(W64, 3, 2)
    X, Y = world.shared(x), world.shared(y)
    cases: list[tuple[Callable[..., Any], list[Any], Any]] = [
        (lambda f, _, a, b: f.add(a, b), [X, Y], x ^ y),
        (lambda f, _, a, b: f.sub(a, b), [X, Y], x ^ y),
        (lambda f, _, a: f.neg(a), [X], x),
        (lambda f, _, a, p: f.mul(a, p), [X, public], x & public),
        (lambda f, _, a, p: f.mul(p, a), [X, public[0]], x & public[0]),
        (lambda f, r, a, p: f.add_public(a, p, leads=r == 0), [X, public], x ^ public),
        (lambda f, _, a: f.dense(a, 70), [X], W64.dense(x, 70)),
    ]
    for operation, operands, right in cases:
        assert np.array_equal(world.opened(world.local(operation, *operands)), right)
    a, b = drawn(W64, 3, 1), drawn(W64, 1, 2)
    d, e = drawn(W64, 3, 1), drawn(W64, 1, 2)
    parts = [world.shared(a), world.shared(b), world.shared(a & b)]
    done = world.local(lambda f, r, *abc: f.beaver(d, e, *abc, lead=r == 0), *parts)
    assert np.array_equal(world.opened(done), (d ^ a) & (e ^ b))


@pytest.mark.parametrize("base", [*FIELDS, W64], ids=str)
@pytest.mark.parametrize("piece", [1 << 10, 3 << 11, 1 << 20])
def test_the_discrepancy_is_zero_for_what_is_right_alone(base: Field, piece: int) -> None:
    world = World(base)
    sizes = (1, 3, 100, 300) if base is W64 else (1, 3, 200, 5000)
    values = [drawn(base, size) for size in sizes]
    shared = [world.shared(x) for x in values]
    coins = [drawn(base, 1) for _ in range(60)]

    def total(seen: list[Any]) -> Any:
        sums = []
        for rank, field in enumerate(world.fields):
            notes = [(x, summands[rank]["mac"]) for x, summands in zip(seen, shared, strict=True)]
            sums.append(field.discrepancy(notes, coins.__getitem__, piece))
        return functools.reduce(base.add, sums)

    assert base.equal(total(values), base.zeros((1,))).all()
    if base.bits < 60:
        return
    for which, entry in ((0, 0), (2, sizes[2] - 1), (3, sizes[3] - 1), (3, 0)):
        wrong = [x.copy() for x in values]
        one = base.encode([1]) if base is not W64 else np.array([1], np.uint64)
        wrong[which][entry : entry + 1] = base.add(wrong[which][entry : entry + 1], one)
        assert not base.equal(total(wrong), base.zeros((1,))).all()


def test_classes() -> None:
    assert type(authenticated(F127, F127.zeros(()))) is Authenticated
    assert isinstance(authenticated(W64, W64.zeros(())), AuthenticatedWords)
