"""Proofs of bits: exactly as sound and as silent as stated, over a toy field where everything can be tried."""

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest

from mpc import F127, GF, Field
from mpc.field import FieldArray
from mpc.ot.bit_proofs import holds, proof

TOY = GF(5)
ALL = range(5)


def elements(field: Field, *values: int) -> FieldArray:
    return field.encode([v if v <= field.half else v - field.modulus for v in (v % field.modulus for v in values)])


def keys_of(field: Field, delta: FieldArray, tags: FieldArray, x: FieldArray) -> FieldArray:
    return field.add(tags, field.mul(delta, x))


def passes(field: Field, delta: int, weights: Any, x: Any, tags: Any, last: tuple[int, int], off: Any = (0, 0)) -> bool:
    """Whether an honest proof for x, shifted by ``off``, passes at the holder."""
    d, w, b, m = elements(field, delta), elements(field, *weights), elements(field, *x), elements(field, *tags)
    pad = elements(field, *last)
    shown = field.add(proof(field, w, b, m, pad), elements(field, *off))
    return holds(field, w, keys_of(field, d, m, b), keys_of(field, d, pad[1:], pad[:1]), d, shown)


def test_bits_always_pass() -> None:
    for delta, m, b, w in product(ALL, ALL, (0, 1), ALL):
        assert passes(TOY, delta, [w, 2], [b, 1 - b], [m, 3], (4, 1))


@pytest.mark.parametrize("x", [2, 3, 4])
def test_something_else_passes_for_three_keys_of_p_at_most(x: int) -> None:
    """Over coin and key, for the best shift of what is shown: at most 3/p, and 2/p where the coin is not 0."""
    best = 0
    for m, off in product(ALL, product(ALL, repeat=2)):
        passed = Counter(w for w, delta in product(ALL, ALL) if passes(TOY, delta, [w], [x], [m], (1, 2), off))
        assert all(passed[w] <= 2 for w in ALL if w)
        best = max(best, sum(passed.values()))
    assert 5 <= best <= 3 * 5  # the coin 0 lets everything pass, and the others what fits two keys


def test_what_is_shown_tells_nothing() -> None:
    """For every view of a holder before, the proof is uniform but for what follows from it, whatever the bits are."""

    def shown(bits: tuple[int, int]) -> dict[Any, Counter[Any]]:
        views: dict[Any, Counter[Any]] = {}
        weights = elements(TOY, 2, 3)
        for m0, m1, last, pad, delta in product(ALL, repeat=5):
            d, b, m, end = (elements(TOY, *v) for v in ((delta,), bits, (m0, m1), (pad, last)))
            before = (*keys_of(TOY, d, m, b).tolist(), *keys_of(TOY, d, end[1:], end[:1]).tolist(), delta)
            views.setdefault(before, Counter())[tuple(proof(TOY, weights, b, m, end).tolist())] += 1
        return views

    first = shown((0, 0))
    assert all(len(seen) == 5 and set(seen.values()) == {1} for seen in first.values())
    assert shown((1, 0)) == shown((0, 1)) == shown((1, 1)) == first


def test_large_field() -> None:
    rng = np.random.default_rng(1)
    count = 1000
    big = [int.from_bytes(rng.bytes(15), "little") for _ in range(2 * count + 3)]
    bits = rng.integers(0, 2, count).tolist()
    weights, tags, (delta, *last) = big[:count], big[count : 2 * count], big[2 * count :]
    assert passes(F127, delta, weights, bits, tags, (last[0], last[1]))
    assert not passes(F127, delta, weights, [*bits[:-1], 2], tags, (last[0], last[1]))
    assert not passes(F127, delta, weights, [*bits[:-1], -1], tags, (last[0], last[1]))
    assert not passes(F127, delta, weights, bits, tags, (last[0], last[1]), (0, 1))
