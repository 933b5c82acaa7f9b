"""Primality of word-sized integers."""

from __future__ import annotations


def is_prime(n: int) -> bool:
    """Whether ``n < 3_215_031_751`` is prime (Miller-Rabin; the bases 2, 3, 5, 7 decide it in this range)."""
    if n >= 3_215_031_751:
        raise ValueError("is_prime: too large")
    if n < 2:
        return False
    for small in (2, 3, 5, 7):
        if n % small == 0:
            return n == small
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(n, base, odd, twos) for base in (2, 3, 5, 7))


def _passes(n: int, base: int, odd: int, twos: int) -> bool:
    power = pow(base, odd, n)
    if power in (1, n - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % n
        if power == n - 1:
            return True
    return False
