"""Runs every C loop at the edges of its range; a build that checks its bounds aborts where one breaks.

Called by test_field.py with the extension to load; with a second argument it feeds a loop what is not an element.
"""

import importlib.util
import sys
from itertools import product

import numpy as np


def load(path: str) -> None:
    """Put the extension of this path in the place of ``mpc._kernels``."""
    spec = importlib.util.spec_from_file_location("mpc._kernels", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["mpc._kernels"] = module
    sys.modules["mpc"]._kernels = module  # type: ignore[attr-defined]


def run(modulus: int) -> None:
    from tests.fields.reference import FACTORS, array, edges, field_on, integers

    field = field_on(modulus, "c")
    if field is None:
        raise ImportError("the extension is not there")
    p, values = field.modulus, edges(field)
    x = array(field, values)
    pairs = list(product(values, repeat=2))
    left, right = array(field, [a for a, _ in pairs]), array(field, [b for _, b in pairs])
    assert integers(field, field.mul(left, right)) == [a * b % p for a, b in pairs]
    for operation in (field.add, field.sub):
        operation(left, right)
    for lead in (False, True):
        field.beaver(left, right, right, left, left, lead=lead)
        field.beaver(left, right, left, right, right, lead=lead)
    factors = np.array(FACTORS)
    assert field.scale_int(x[:, None], factors).shape == (len(values), len(FACTORS))
    field.neg(x), field.encode(np.array([-field.half, field.half]) if p < 2**64 else factors)
    field.decode(x), field.decode_fixed(x, 1), field.residue(x, 2**31 - 1), field.is_canonical(x)
    for bits in range(1, field.bits):
        field.shift_round(x, bits)
    field.encode_fixed([v * s for v in (1.0, 2.0**59, float(field.half // 2)) for s in (1, -1)], 0)
    field.from_uniform(np.full(64, 255, np.uint8))
    for entry in (p - 1, p // 2, p // 2 + 1, 2**26 - 1, 1):
        for count in (1, 7, 100, 3000):
            row = np.broadcast_to(array(field, [entry]), (3, count)).copy()
            assert integers(field, field.sum(row, 1)) == [entry * count % p] * 3
            assert integers(field, field.sum(row, 0)) == [3 * entry % p] * count
            for k in FACTORS:
                assert integers(field, field.dot_int(row[0], np.full(count, k))) == entry * k * count % p
            for multiply in (field._kernels.matmul.small, field._kernels.matmul.large):  # type: ignore[attr-defined]
                assert integers(field, multiply(row, row.T)) == [[entry**2 * count % p] * 3] * 3
    sys.stdout.write(f"{field}\n")


def main() -> None:
    from mpc import F61, F127

    load(sys.argv[1])
    from tests.fields.reference import field_on

    if len(sys.argv) > 2:
        field = field_on(F61.modulus, "c")
        assert field is not None
        field.add(np.full(1, 2**62, np.uint64), field.zeros(1))
    for modulus in (F61.modulus, F127.modulus):
        run(modulus)
    sys.stdout.write("checked\n")


if __name__ == "__main__":
    main()
