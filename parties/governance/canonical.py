"""One value, one sequence of bytes: what is hashed and signed.

JSON in ASCII with sorted keys and without spaces. Numbers are written as Python writes them: integers in
decimal, floats by the shortest digits that give them back (the same since Python 3.1), so that the bytes
of a value are the same at every member.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from parties.governance.errors import CanonicalError

DEPTH = 32
_LARGEST_INTEGER = 1 << 63


def canonical(value: object) -> bytes:
    """Write a value of JSON's types in the one way that is hashed and signed.

    Raises
    ------
    CanonicalError
        If the value holds NaN, an infinity, an integer of more than 64 bits, text that is not Unicode, or a
        type that JSON does not have, or is nested more than 32 deep; says which, never the value.
    """
    _check(value, 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def parse(data: bytes, *, limit: int) -> Any:
    """Read JSON from outside: bounded, without doubled keys, NaN or infinities.

    Parameters
    ----------
    data : bytes
    limit : int
        The most bytes.

    Raises
    ------
    CanonicalError
        Saying what is wrong; never quoting the content.
    """
    if len(data) > limit:
        raise CanonicalError(f"{len(data)} bytes are above the limit of {limit}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_single_keys, parse_constant=_no_constant)
    except CanonicalError:
        raise
    except (ValueError, RecursionError):  # also UnicodeDecodeError, and integers of thousands of digits
        raise CanonicalError("these bytes are not JSON") from None
    _check(value, 0)
    return value


def parse_canonical(data: bytes, *, limit: int) -> Any:
    """Read what :func:`canonical` wrote; another way to write the same value is refused.

    Raises
    ------
    CanonicalError
    """
    value = parse(data, limit=limit)
    if canonical(value) != data:
        raise CanonicalError("these bytes are JSON, but not in canonical form")
    return value


def digest(domain: str, content: bytes) -> str:
    """Return the SHA-256 in hexadecimal of content that belongs to a domain.

    The domain says what the content is, so that a hash of one kind of thing never is one of another.
    """
    return hashlib.sha256(separated(domain, content)).hexdigest()


def separated(domain: str, content: bytes) -> bytes:
    """Put the domain in front: what is hashed or signed.

    Raises
    ------
    CanonicalError
        If the domain is not printable ASCII (a NUL in it would end it early).
    """
    if not domain or not (domain.isascii() and domain.isprintable()):
        raise CanonicalError("a domain is printable ASCII")
    return domain.encode("ascii") + b"\0" + content


def _check(value: object, depth: int) -> None:
    if depth > DEPTH:
        raise CanonicalError(f"a value is nested more than {DEPTH} deep")
    kind = type(value)
    if value is None or kind is bool:
        return
    if isinstance(value, str) and kind is str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise CanonicalError("a text holds half a character (a lone surrogate)") from None
    elif isinstance(value, int) and kind is int:
        if not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
            raise CanonicalError("an integer has more than 64 bits")
    elif isinstance(value, float) and kind is float:
        if not math.isfinite(value):
            raise CanonicalError("a number is NaN or infinite")
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise CanonicalError(f"a key is of type {type(key).__name__}, not text")
            _check(key, depth + 1)
            _check(item, depth + 1)
    else:
        raise CanonicalError(f"a value of type {kind.__name__} has no canonical form")


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    single = dict(pairs)
    if len(single) != len(pairs):
        raise CanonicalError("a key stands twice in one object")
    return single


def _no_constant(name: str) -> Any:
    raise CanonicalError("a number is NaN or infinite")
