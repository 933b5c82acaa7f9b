"""Integers and fixed-point numbers into the field and back."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import RangeError
from mpc.field import Field
from tests.fields.reference import array, edges, elements, integers, signed


class TestIntegers:
    @given(data=st.data())
    def test_round_trip(self, field: Field, data: st.DataObject) -> None:
        values = data.draw(st.lists(elements(field).map(lambda v: signed(field, v)), max_size=20))
        encoded = field.encode(values)
        assert integers(field, encoded) == [v % field.modulus for v in values]
        decoded = field.decode(encoded)
        assert decoded.tolist() == values
        assert decoded.dtype == (np.int64 if all(-(2**63) <= v < 2**63 for v in values) else object)

    def test_what_fits_an_int64_comes_back_as_one(self, large: Field) -> None:
        if large.half < 2**63:
            return
        for value in (2**63 - 1, -(2**63)):
            assert large.decode(large.encode([value])).dtype == np.int64
        for value in (2**63, -(2**63) - 1, large.half, -large.half):
            decoded = large.decode(large.encode([[0, value]]))
            assert decoded.dtype == object
            assert decoded.tolist() == [[0, value]]
            assert all(type(v) is int for v in decoded.reshape(-1))

    def test_forms_of_integers(self, field: Field) -> None:
        p = field.modulus
        for values in (
            [1, -1],
            (1, -1),
            np.array([1, -1]),
            np.array([1, -1], np.int8),
            np.array([1, -1], ">i4"),
            np.array([1, -1], np.longlong),
            np.array([1, -1], object),
            np.array([np.int64(1), -1], object),
        ):
            assert integers(field, field.encode(values)) == [1, p - 1]
        assert integers(field, field.encode(np.array([1, 2], np.uint8))) == [1, 2]
        assert integers(field, field.encode(np.array([1, 2], np.uint64))) == [1, 2]
        assert integers(field, field.encode(-2)) == p - 2
        assert integers(field, field.encode(np.int32(-2))) == p - 2
        assert integers(field, field.encode([[1], [2]])) == [[1], [2]]
        assert integers(field, field.encode([])) == []
        assert field.encode(np.zeros((0, 3), np.int64)).shape == (0, 3)
        assert integers(field, field.encode(np.arange(6).reshape(2, 3)[:, ::-1] % 3)) == [[2, 1, 0], [2, 1, 0]]

    def test_mixed_sizes_stay_exact(self, large: Field) -> None:
        """numpy would make float64 of an int64 beside an uint64."""
        if large.half > 2**64:
            assert large.decode(large.encode([-1, 2**63])).tolist() == [-1, 2**63]
            assert large.decode(large.encode(np.array([2**64 - 1], np.uint64))).tolist() == [2**64 - 1]

    @pytest.mark.parametrize("values", [1.0, [1, 2.0], True, [1, True], "1", [None], [[1], [1, 2]]])
    def test_other_types_are_refused(self, field: Field, values: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            field.encode(values)

    @pytest.mark.parametrize("dtype", [np.float64, np.bool_, np.complex128, "U1"])
    def test_other_arrays_are_refused(self, field: Field, dtype: Any) -> None:
        with pytest.raises(TypeError):
            field.encode(np.zeros(2, dtype))

    def test_beyond_the_range(self, field: Field) -> None:
        half = field.half
        for values in ([half + 1], [0, -half - 1], [2**200, -(2**200), 1], np.array([0, half + 1], object)):
            with pytest.raises(RangeError, match=r"\d of \d values are beyond the range of") as refused:
                field.encode(values)
            assert str(2**200) not in str(refused.value)
        if half < 2**62:
            with pytest.raises(RangeError, match=r"2 of 3 values are beyond the range of"):
                field.encode(np.array([half + 1, 0, -(2**63)]))
        assert field.decode(field.encode([half, -half])).tolist() == [half, -half]


def nearest(numerator: int, bits: int) -> float:
    return float(Fraction(numerator, 2**bits))


class TestFixedPoint:
    @given(data=st.data())
    def test_encoding_is_exact_rounding(self, large: Field, data: st.DataObject) -> None:
        bits = data.draw(st.sampled_from([0, 1, 24, 40]))
        room = float((large.half + 1) // 2 ** (bits + 1))
        values = data.draw(st.lists(st.floats(-room, room) | st.integers(-10, 10).map(lambda v: v / 2 ** (bits + 1))))
        expected = [round(Fraction(v) * 2**bits) for v in values]
        assert large.decode(large.encode_fixed(values, bits)).tolist() == expected

    def test_edges_of_rounding(self, large: Field) -> None:
        values = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.0, -0.0, 5e-324, -5e-324, 0.49999999999999994, 2.0**51 + 0.5]
        values += [2.0**51 + 1.5, -(2.0**51) - 0.5, 2.0**52 - 0.5, 2.0**52 + 1, 2.0**53 + 2, 2.0**59, -(2.0**59) - 128]
        assert large.decode(large.encode_fixed(values, 0)).tolist() == [round(Fraction(v)) for v in values]

    def test_large_floats_are_exact(self, large: Field) -> None:
        top = np.nextafter(float(large.half + 1), 0)
        values = [v * sign for v in (top, top / 2, float(2**60) - 128, 2.0**59 + 128) for sign in (1, -1)]
        if large.half > 2**64:
            values += [2.0**63, -(2.0**63), 2.0**64, 2.0**64 - 2048, 2.0**100 + 2.0**48, -(2.0**125)]
        assert large.decode(large.encode_fixed(values, 0)).tolist() == [int(v) for v in values]

    def test_small_fields(self, field: Field) -> None:
        assert integers(field, field.encode_fixed([0.5, -0.5, 0.25, 1.0, -1.0], 1)) == [
            v % field.modulus for v in (1, -1, 0, 2, -2)
        ]

    @pytest.mark.parametrize("bad", [1.0, -1.0, 1e300, -1e308])
    def test_beyond_the_range(self, field: Field, bad: float) -> None:
        value = bad if abs(bad) > 1 else bad * float(field.half + 1)
        with pytest.raises(RangeError, match=r"1 of 4 values are beyond the range of .* at 1 fraction bits") as refused:
            field.encode_fixed([0.0, value, 1.0, -1.0], 1)
        assert str(value) not in str(refused.value)

    def test_nan_and_infinity_are_refused_by_name(self, field: Field) -> None:
        values = np.zeros((4, 30))
        values[1, 3] = values[2, :2] = np.nan
        with pytest.raises(ValueError, match="3 of 120 values are NaN"):
            field.encode_fixed(values, 1)
        with pytest.raises(ValueError, match="1 of 2 values are infinite"):
            field.encode_fixed([-np.inf, 0.0], 1)

    def test_forms_of_floats(self, field: Field) -> None:
        assert field.encode_fixed(0.5, 1).shape == ()
        assert field.encode_fixed(np.float32(0.5), 1).shape == ()
        assert field.encode_fixed(np.zeros((0, 2)), 1).shape == (0, 2)
        assert integers(field, field.encode_fixed(np.array([[1.0, 0.5, 0.0]]).T[::-1], 1)) == [[0], [1], [2]]
        assert integers(field, field.encode_fixed([1, 0], 1)) == [2, 0]

    @given(data=st.data())
    def test_decoding_is_the_nearest_float(self, field: Field, data: st.DataObject) -> None:
        bits = data.draw(st.integers(0, field.bits - 1))
        values = data.draw(st.lists(elements(field)))
        expected = [nearest(signed(field, v), bits) for v in values]
        decoded = field.decode_fixed(array(field, values), bits)
        assert decoded.dtype == np.float64
        assert decoded.tolist() == expected

    def test_decoding_ties_and_just_beside_them(self, large: Field) -> None:
        values = []
        for top in range(53, large.bits - 1):
            unit = 2 ** (top - 53)  # half a unit in the last place of a number just above 2^top
            values += [2**top + k * unit + offset for k in (1, 2, 3) for offset in (-1, 0, 1)]
        values = [v for v in values if v <= large.half]
        both = values + [-v for v in values]
        assert large.decode_fixed(array(large, both), 0).tolist() == [float(v) for v in both]

    @pytest.mark.parametrize("bits", [-1, 200])
    def test_bits_out_of_range(self, field: Field, bits: int) -> None:
        with pytest.raises(ValueError, match=f"bits, not {bits}"):
            field.encode_fixed([0.0], bits)
        with pytest.raises(ValueError, match=f"bits, not {bits}"):
            field.decode_fixed(field.zeros(1), bits)
        with pytest.raises(ValueError, match=f"bits, not {bits}"):
            field.shift_round(field.zeros(1), bits)


class TestIntegerSteps:
    def test_shift_of_every_edge_by_every_number_of_bits(self, field: Field) -> None:
        values = edges(field)
        x = array(field, values)
        for bits in range(field.bits):
            expected = [(signed(field, v) + 2**bits // 2) // 2**bits % field.modulus for v in values]
            assert integers(field, field.shift_round(x, bits)) == expected

    @given(data=st.data())
    def test_shift(self, field: Field, data: st.DataObject) -> None:
        value, bits = data.draw(elements(field)), data.draw(st.integers(1, field.bits - 1))
        expected = (signed(field, value) + 2 ** (bits - 1)) // 2**bits % field.modulus
        assert integers(field, field.shift_round(array(field, [value]), bits)) == [expected]

    def test_a_shift_by_nothing_is_a_copy(self, field: Field) -> None:
        x = array(field, [1, 2])
        shifted = field.shift_round(x, 0)
        assert integers(field, shifted) == [1, 2]
        assert not np.shares_memory(x, shifted)

    @pytest.mark.parametrize("m", [1, 2, 3, 64, 1009, 2**16, 2**30 + 1, 2**31 - 1])
    def test_residue(self, field: Field, m: int) -> None:
        values = edges(field)
        residues = field.residue(array(field, values), m)
        assert residues.dtype == np.int64
        assert residues.tolist() == [signed(field, v) % m for v in values]

    @pytest.mark.parametrize("m", [0, -1, 2**31])
    def test_modulus_out_of_range(self, field: Field, m: int) -> None:
        with pytest.raises(ValueError, match="residue takes a modulus"):
            field.residue(field.zeros(1), m)
