"""Sums and products against Python integers, on both backends."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.field import F61, F127, Field
from tests.fields.reference import FACTORS, array, edges, elements, factors, integers


def rows(field: Field, width: int) -> Any:
    """Return lists of tuples of field elements."""
    return st.lists(st.tuples(*[elements(field)] * width), max_size=30)


def columns(field: Field, drawn: list[tuple[int, ...]], width: int) -> list[Any]:
    return [array(field, [row[i] for row in drawn]) for i in range(width)]


class TestEntryByEntry:
    def test_every_pair_of_edges(self, field: Field) -> None:
        p = field.modulus
        pairs = list(product(edges(field), repeat=2))
        x, y = array(field, [a for a, _ in pairs]), array(field, [b for _, b in pairs])
        assert integers(field, field.add(x, y)) == [(a + b) % p for a, b in pairs]
        assert integers(field, field.sub(x, y)) == [(a - b) % p for a, b in pairs]
        assert integers(field, field.mul(x, y)) == [a * b % p for a, b in pairs]
        assert integers(field, field.neg(x)) == [-a % p for a, _ in pairs]

    @given(data=st.data())
    def test_sum_difference_product(self, field: Field, data: st.DataObject) -> None:
        p, drawn = field.modulus, data.draw(rows(field, 2))
        x, y = columns(field, drawn, 2)
        assert integers(field, field.add(x, y)) == [(a + b) % p for a, b in drawn]
        assert integers(field, field.sub(x, y)) == [(a - b) % p for a, b in drawn]
        assert integers(field, field.mul(x, y)) == [a * b % p for a, b in drawn]
        assert field.equal(x, y).tolist() == [a == b for a, b in drawn]

    @given(data=st.data())
    def test_beaver(self, field: Field, data: st.DataObject) -> None:
        p, drawn = field.modulus, data.draw(rows(field, 5))
        operands = columns(field, drawn, 5)
        expected = [(d * b + e * a + c) % p for d, e, a, b, c in drawn]
        assert integers(field, field.beaver(*operands, lead=False)) == expected
        expected = [(d * b + e * a + c + d * e) % p for d, e, a, b, c in drawn]
        assert integers(field, field.beaver(*operands, lead=True)) == expected

    @pytest.mark.parametrize("lead", [False, True])
    def test_beaver_of_the_largest(self, field: Field, lead: bool) -> None:
        p = field.modulus
        top = array(field, [p - 1] * 9)
        # (-1)(-1) + (-1)(-1) + (-1), and one more (-1)(-1)
        assert integers(field, field.beaver(top, top, top, top, top, lead=lead)) == [(2 if lead else 1) % p] * 9

    def test_long_arrays_of_the_twin_are_cut_in_blocks(self, field: Field) -> None:
        p, count = field.modulus, 5000
        values = [(7**5 * i * i + 3) * (p // 3) % p for i in range(count)]
        x, y = array(field, values), array(field, values[::-1])
        expected = [a * b % p for a, b in zip(values, values[::-1], strict=True)]
        assert integers(field, field.mul(x, y)) == expected
        assert integers(field, field.mul(x, y, out=y)) == expected
        assert integers(field, y) == expected


class TestShapes:
    def test_broadcasting(self, field: Field) -> None:
        p = field.modulus
        column, row = [[p - 1], [2], [3 % p]], [[0, 1, p - 1, p - 2]]
        x, y = array(field, column), array(field, row)
        assert integers(field, field.mul(x, y)) == [[a[0] * b % p for b in row[0]] for a in column]
        assert integers(field, field.add(y, x)) == [[(a[0] + b) % p for b in row[0]] for a in column]
        expected = [[(a[0] * b + b * a[0] + a[0]) % p for b in row[0]] for a in column]
        assert integers(field, field.beaver(x, y, x, y, x, lead=False)) == expected

    def test_scalars_give_arrays_without_axes(self, field: Field) -> None:
        p = field.modulus
        x, y = array(field, p - 1), array(field, p - 2)
        cases = [
            (field.add(x, y), p - 3),
            (field.sub(x, y), 1),
            (field.mul(x, y), 2),
            (field.neg(x), 1),
            (field.beaver(x, y, x, y, x, lead=True), 2 + 2 + 2 - 1),
            (field.scale_int(x, -3), 3),
            (field.shift_round(x, 1), 0),
            (field.sum(x), p - 1),
            (field.sum(array(field, [p - 1, p - 2])), p - 3),
            (field.dot_int(array(field, [p - 1, p - 2]), np.array([2, -1])), 0),
            (field.matmul(array(field, [p - 1, 2]), array(field, [1, 1])), 1),
        ]
        for result, expected in cases:
            assert result.shape == ()
            assert integers(field, result) == expected % p
        assert integers(field, field.add(np.array([x, y])[0], y)) == p - 3  # a numpy scalar, too
        assert field.decode(x).tolist() == -1
        assert field.decode_fixed(x, 1).tolist() == -0.5
        assert field.residue(x, 3).tolist() == 2

    def test_empty_arrays(self, field: Field) -> None:
        x = field.zeros((3, 0))
        for result in (field.add(x, x), field.mul(x, x), field.neg(x), field.scale_int(x, 2), field.shift_round(x, 1)):
            assert result.shape == (3, 0)
            assert result.dtype == field.dtype
        assert integers(field, field.sum(x, 1)) == [0, 0, 0]
        assert field.sum(x, 0).shape == (0,)
        assert integers(field, field.sum(x)) == 0
        assert integers(field, field.dot_int(x, np.zeros(0, np.int64))) == [0, 0, 0]
        assert field.decode(x).shape == field.decode_fixed(x, 1).shape == field.residue(x, 2).shape == (3, 0)

    def test_memory_layouts(self, field: Field) -> None:
        p = field.modulus
        values = np.array([[(p - 1 - i * 5 - j) % p for j in range(6)] for i in range(4)], dtype=object)
        x = array(field, values)
        packed = x.tobytes()
        offset = np.frombuffer(b"\0" + packed, dtype=np.uint8)[1:].view(field.dtype).reshape(4, 6)  # odd address
        for view, same in (
            (x[:, ::2], values[:, ::2]),
            (x[::-1, ::-1], values[::-1, ::-1]),
            (x.T, values.T),
            (np.broadcast_to(x[0], (3, 6)), np.broadcast_to(values[0], (3, 6))),
            (offset, values),
            (np.asfortranarray(x), values),
        ):
            assert integers(field, field.add(view, view)) == (2 * same % p).tolist()
            assert integers(field, field.mul(view, view)) == (same * same % p).tolist()
            assert integers(field, field.sum(view)) == sum(same.reshape(-1)) % p
            assert integers(field, field.sum(view, 0)) == (same.sum(axis=0) % p).tolist()
            assert integers(field, field.sum(view, 1)) == (same.sum(axis=1) % p).tolist()
            assert integers(field, field.matmul(view, view.T)) == (same.dot(same.T) % p).tolist()
            assert field.is_canonical(view)
            assert bytes(field.to_bytes(view)) == bytes(field.to_bytes(array(field, same)))
            assert field.decode(view).tolist() == field.decode(array(field, same)).tolist()

    def test_out_may_be_an_operand(self, field: Field) -> None:
        p = field.modulus
        for operation, expected in ((field.add, p - 3), (field.sub, 1), (field.mul, 2 % p)):
            x, y = array(field, [p - 1] * 5), array(field, [p - 2] * 5)
            assert operation(x, y, out=x) is x
            assert integers(field, x) == [expected] * 5
            x = array(field, [p - 1] * 5)
            assert operation(x, y, y) is y
            assert integers(field, y) == [expected] * 5
        overlapping = array(field, list(range(5)))
        field.add(overlapping[:-1], overlapping[1:], out=overlapping[1:])
        assert integers(field, overlapping) == [v % p for v in (0, 1, 3, 5, 7)]

    def test_out_may_be_strided(self, field: Field) -> None:
        target = field.zeros((4, 2))
        field.mul(array(field, [3] * 4), array(field, [3] * 4), out=target[:, 0])
        assert integers(field, target) == [[9 % field.modulus, 0]] * 4


class TestSums:
    @given(data=st.data())
    def test_sum(self, field: Field, data: st.DataObject) -> None:
        drawn = data.draw(st.lists(elements(field), max_size=40))
        x = array(field, drawn)
        assert integers(field, field.sum(x)) == sum(drawn) % field.modulus
        assert integers(field, field.sum(x[::-2])) == sum(drawn[::-2]) % field.modulus

    @pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3, (0, 1), (2, 0), (0, 1, 2), (-1, -2), ()])
    def test_axes(self, field: Field, axis: int | tuple[int, ...] | None) -> None:
        p = field.modulus
        values = np.array([(p - 1 - 3 * i) % p for i in range(3 * 70 * 5)], dtype=object).reshape(3, 70, 5)
        expected = np.asarray(np.asarray(values.sum(axis=axis), dtype=object) % p, dtype=object)
        result = field.sum(array(field, values), axis)
        assert result.shape == np.zeros(values.shape).sum(axis=axis).shape
        assert integers(field, result) == expected.tolist()

    @pytest.mark.parametrize("shape", [(1, 70_000), (70_000, 1), (70_000, 3), (9000, 33)])
    def test_long_sums_of_the_largest(self, field: Field, shape: tuple[int, int]) -> None:
        x = np.broadcast_to(array(field, [field.modulus - 1]), shape).copy()
        for axis in (0, 1):
            expected = [-shape[axis] % field.modulus] * shape[1 - axis]
            assert integers(field, field.sum(x, axis)) == expected

    def test_axis_out_of_range(self, field: Field) -> None:
        with pytest.raises(ValueError):
            field.sum(field.zeros((2, 2)), 2)
        with pytest.raises(ValueError):
            field.sum(field.zeros((2, 2)), (0, 0))


class TestPublicFactors:
    def test_every_edge_times_every_factor(self, field: Field) -> None:
        x, k = array(field, edges(field)), np.array(FACTORS, dtype=np.int64)
        expected = [[a * b % field.modulus for b in FACTORS] for a in edges(field)]
        assert integers(field, field.scale_int(x[:, None], k)) == expected

    @given(data=st.data())
    def test_scale_and_dot(self, field: Field, data: st.DataObject) -> None:
        p, drawn = field.modulus, data.draw(st.lists(st.tuples(elements(field), factors()), max_size=20))
        x, k = array(field, [a for a, _ in drawn]), np.array([b for _, b in drawn], dtype=np.int64)
        assert integers(field, field.scale_int(x, k)) == [a * b % p for a, b in drawn]
        assert integers(field, field.dot_int(x, k)) == sum(a * b for a, b in drawn) % p

    @given(data=st.data())
    def test_one_factor_of_any_size(self, field: Field, data: st.DataObject) -> None:
        x = data.draw(elements(field))
        k = data.draw(st.integers(-(2**300), 2**300) | st.sampled_from([2**63, -(2**63) - 1, 2**127, -(2**61) + 1]))
        assert integers(field, field.scale_int(array(field, [x]), k)) == [x * k % field.modulus]

    @pytest.mark.parametrize("k", [2**63 - 1, -(2**63)])
    @pytest.mark.parametrize("count", [1, 1000, 20_000])
    def test_long_dots_of_the_largest(self, field: Field, k: int, count: int) -> None:
        x = np.broadcast_to(array(field, [[field.modulus - 1], [field.modulus // 2]]), (2, count))
        expected = [-k * count % field.modulus, field.modulus // 2 * k * count % field.modulus]
        assert integers(field, field.dot_int(x, np.full(count, k))) == expected

    def test_dot_broadcasts(self, field: Field) -> None:
        x = array(field, [[1, 2], [3, 4], [0, 1]])
        assert integers(field, field.dot_int(x, np.array([[[1, -1]], [[2, 0]]]))) == [
            [v % field.modulus for v in row] for row in [[-1, -1, -1], [2, 6, 0]]
        ]

    def test_other_types(self, field: Field) -> None:
        x = array(field, [1, 2])
        assert integers(field, field.scale_int(x, np.array([-1, 1], np.int8))) == [field.modulus - 1, 2]
        assert integers(field, field.scale_int(x, np.array([1, 2], np.longlong))) == [1, 4]
        assert integers(field, field.scale_int(x, np.array([1, 2], ">i8"))) == [1, 4]
        assert integers(field, field.scale_int(x, np.int64(-2))) == [field.modulus - 2, field.modulus - 4]
        for bad in (1.0, True, np.array([1.0]), np.array([True]), np.array([1], np.uint64), np.array([1], object)):
            with pytest.raises(TypeError):
                field.scale_int(x, bad)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                field.dot_int(x, bad)  # type: ignore[arg-type]


def test_elements_of_different_fields_do_not_mix(large: Field) -> None:
    other = F61 if large.element_bytes == 16 else F127
    for x, y in ((large.zeros(2), other.zeros(2)), (other.zeros(2), other.zeros(2))):
        for operation in (large.add, large.sub, large.mul):
            with pytest.raises(TypeError):
                operation(x, y)
    for call in (large.neg, large.sum, large.decode, large.is_canonical):
        with pytest.raises(TypeError):
            call(other.zeros(2))
    with pytest.raises(TypeError):
        large.matmul(other.zeros((2, 2)), other.zeros((2, 2)))
