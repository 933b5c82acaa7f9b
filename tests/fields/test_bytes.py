"""Elements on the wire, and uniform bytes into uniform elements."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.field import F61, F127, GF, Field
from tests.fields.reference import array, edges, elements, integers

FROZEN = {
    "F61": (
        [0, 1, 2**61 - 2, 0x0123456789ABCDEF],
        "00" * 8 + "01" + "00" * 7 + "feffffffffffff1f" + "efcdab8967452301",
    ),
    "F127": (
        [1, 2**127 - 2, 2**64, 0x0123456789ABCDEF_FEDCBA9876543210],
        "01" + "00" * 15 + "fe" + "ff" * 14 + "7f" + "00" * 8 + "01" + "00" * 7 + "1032547698badcfeefcdab8967452301",
    ),
    "GF(5)": ([0, 4, 1], "000401"),
    "GF(7)": ([6, 0], "0600"),
    "GF(2147483647)": ([2**31 - 2, 258], "feffff7f" + "02010000"),
}


class TestWire:
    def test_frozen_vectors(self, field: Field) -> None:
        values, wire = FROZEN[field.name]
        assert bytes(field.to_bytes(array(field, values))).hex() == wire
        assert integers(field, field.from_bytes(bytes.fromhex(wire), len(values))) == values

    @given(data=st.data())
    def test_round_trip(self, field: Field, data: st.DataObject) -> None:
        values = data.draw(st.lists(elements(field), max_size=20))
        wire = field.to_bytes(array(field, values))
        assert wire.nbytes == len(values) * field.element_bytes
        assert bytes(wire) == b"".join(v.to_bytes(field.element_bytes, "little") for v in values)
        for received in (wire, bytes(wire), bytearray(wire)):
            assert integers(field, field.from_bytes(received, (1, len(values)))) == [values]

    def test_sizes(self) -> None:
        primes = (5, 251, 257, 65537, 2**31 - 1)
        sizes = [1, 1, 2, 4, 4, 8, 16]
        assert [field.element_bytes for field in (*map(GF, primes), F61, F127)] == sizes

    def test_shapes(self, field: Field) -> None:
        x = array(field, [[1, 2, 3], [4, 0, 1]])
        wire = field.to_bytes(x)
        assert integers(field, field.from_bytes(wire, (2, 3))) == [[1, 2, 3], [4, 0, 1]]
        assert bytes(field.to_bytes(x.T)) == bytes(field.to_bytes(array(field, [[1, 4], [2, 0], [3, 1]])))
        assert integers(field, field.from_bytes(field.to_bytes(x[0, 1]), ())) == 2
        assert field.to_bytes(field.zeros((2, 0))).nbytes == 0
        assert field.from_bytes(b"", (2, 0)).shape == (2, 0)

    def test_sending_copies_nothing(self, large: Field) -> None:
        x = array(large, [1, 2])
        wire = large.to_bytes(x)
        assert np.shares_memory(x, np.frombuffer(wire, np.uint8))

    def test_receiving_at_an_odd_address(self, field: Field) -> None:
        wire = b"\xff" + bytes(field.to_bytes(array(field, [3, 4])))
        received = field.from_bytes(memoryview(wire)[1:], 2)
        assert integers(field, field.add(received, received)) == [6 % field.modulus, 8 % field.modulus]

    def test_a_wrong_length_is_refused(self, field: Field) -> None:
        for length in (0, 1, 2 * field.element_bytes - 1, 2 * field.element_bytes + 1):
            with pytest.raises(ValueError, match=f"{length} bytes, where 2 elements of"):
                field.from_bytes(bytes(length), 2)
        with pytest.raises(ValueError, match="bytes, where 0 elements"):
            field.from_bytes(b"\0", (0, 3))

    def test_what_is_not_canonical_is_refused(self, field: Field) -> None:
        p, size = field.modulus, field.element_bytes
        good = (p - 1).to_bytes(size, "little")
        assert field.from_bytes(good * 3, 3).shape == (3,)
        for value in (p, p + 1, 256**size - 1, 256**size // 2):
            if p <= value < 256**size:
                for place in range(3):
                    wire = good * place + value.to_bytes(size, "little") + good * (2 - place)
                    with pytest.raises(ValueError, match="not a canonical element") as refused:
                        field.from_bytes(wire, 3)
                    assert str(value) not in str(refused.value).replace(field.name, "")

    def test_one_that_is_not_canonical_is_found_among_many(self, field: Field) -> None:
        """Entries that lie side by side are looked at several at a time."""
        p, size = field.modulus, field.element_bytes
        count, good = 13, [(p - 1).to_bytes(size, "little"), bytes(size), bytes(size - 1) + b"\1"]
        for value in {p, 256**size - 1, max(p, 256**size // 2)}:
            for place in range(count):
                entries = [good[n % 3] for n in range(count)]
                assert field.from_bytes(b"".join(entries), count).shape == (count,)
                entries[place] = value.to_bytes(size, "little")
                words = np.frombuffer(b"".join(entries), np.uint8)
                with pytest.raises(ValueError, match="not a canonical element"):
                    field.from_bytes(words.data, count)
                assert field._kernels.noncanonical(words.view(f"V{size}").view(field._wire).astype(field.dtype)) == 1

    def test_is_canonical(self, field: Field) -> None:
        x = array(field, edges(field))
        assert field.is_canonical(x)
        assert field.is_canonical(x.reshape(1, -1)[:, ::2])
        assert field.is_canonical(field.zeros(0))
        words = np.full((2, 2 * field.dtype.itemsize), 255, np.uint8).view(field.dtype)
        assert not field.is_canonical(words)
        words[:, 0] = field.zeros(2)
        assert not field.is_canonical(words)
        assert field.is_canonical(words[:, :1])


def raw(field: Field, values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(v.to_bytes(field.element_bytes, "little") for v in values), np.uint8)


class TestUniform:
    @pytest.mark.parametrize("modulus", [5, 7, 251])
    def test_every_byte_once_gives_every_element_equally_often(self, modulus: int) -> None:
        field = GF(modulus)
        drawn, rejected = field.from_uniform(np.arange(256, dtype=np.uint8))
        kept = np.delete(drawn, rejected)
        times = 256 // 2**field.bits
        assert Counter(kept.tolist()) == dict.fromkeys(range(modulus), times)
        assert drawn[rejected].tolist() == [0] * (256 - times * modulus)

    def test_excess_bits_are_dropped_and_p_is_rejected(self, field: Field) -> None:
        p, top = field.modulus, 256**field.element_bytes
        mask = 2**field.bits - 1
        values = [0, 1, p - 1, p, mask, top - 1, (top - 1) - (mask - (p - 1)), top // 2]
        drawn, rejected = field.from_uniform(raw(field, values))
        expected = [v & mask for v in values]
        assert rejected.tolist() == [i for i, v in enumerate(expected) if v >= p]
        assert integers(field, drawn) == [v if v < p else 0 for v in expected]
        drawn[rejected] = field.from_uniform(raw(field, [1] * len(rejected)))[0]  # as a caller draws again
        assert integers(field, drawn) == [v if v < p else 1 for v in expected]

    @given(data=st.data())
    def test_all_the_rest_is_taken_as_it_is(self, field: Field, data: st.DataObject) -> None:
        values = data.draw(st.lists(elements(field), max_size=20))
        drawn, rejected = field.from_uniform(raw(field, values))
        assert integers(field, drawn) == values
        assert rejected.size == 0

    def test_the_source_is_left_alone(self, field: Field) -> None:
        source = np.full(4 * field.element_bytes, 255, np.uint8)
        source.flags.writeable = False
        drawn, _ = field.from_uniform(source)
        drawn[:] = field.zeros(4)
        assert source.tolist() == [255] * source.size

    def test_bounded(self, field: Field) -> None:
        for bits in range(field.bits):
            width = 16 if bits > 64 else 8
            values = [0, 1, 2**bits - 1, 2**bits % 256**width, 256**width - 1, 0x5A5A5A5A_5A5A5A5A]
            source = np.frombuffer(b"".join(v.to_bytes(width, "little") for v in values), np.uint8)
            drawn = field.bounded_from_uniform(source, bits)
            assert integers(field, drawn) == [v % 2**bits for v in values]
        for bits in (-1, field.bits):
            with pytest.raises(ValueError, match=f"bits, not {bits}"):
                field.bounded_from_uniform(np.zeros(16, np.uint8), bits)

    def test_bounded_draws_are_uniform(self) -> None:
        field = GF(257)  # 9 bits, so at most 8 are drawn
        source = np.array([[low, high, 0, 0, 0, 0, 0, 0] for low, high in product(range(256), (0, 1))], np.uint8)
        drawn = field.bounded_from_uniform(source.reshape(-1), 8)
        assert Counter(drawn.tolist()) == dict.fromkeys(range(256), 2)
