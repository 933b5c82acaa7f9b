"""What a program asks a preprocessing for, as texts that all parties can compare and keep.

The key of an item in a :class:`mpc.prepare.Stock` is a tuple whose first entry says the kind. Here it becomes plain
lists and back, and every entry is checked: what is read may come from a peer or from a disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mpc.preprocessing.permutations import Place, Route
from mpc.preprocessing.requests import Base, Recipe

Wanted = tuple[Any, ...]
Rename = Callable[[str], str]

_MOST_ENTRIES = 1 << 31
_MOST_HARMONICS = 4096


def to_json(wanted: Wanted) -> list[Any]:
    """Return a key as plain lists."""
    return [_plain(part) for part in wanted]


def _plain(part: Any) -> Any:
    if isinstance(part, Recipe | Base):
        return part.to_json()
    return [_plain(inner) for inner in part] if isinstance(part, tuple) else part


def from_json(content: Any) -> Wanted:
    """Read a key.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        kind, *rest = content
        return (kind, *_READ[kind](*rest))
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise ValueError("nothing that a program asks for") from error


def base_from_json(content: Any) -> Base:
    """Read where a mask begins; raises as :func:`from_json`."""
    try:
        return Base.from_json(content)
    except (TypeError, ValueError) as error:
        raise ValueError("no place of a mask") from error


def place_from_json(content: Any) -> Place:
    """Read where a permutation was drawn; raises as :func:`from_json`."""
    try:
        path, position, rows = content
    except (TypeError, ValueError) as error:
        raise ValueError("no place of a permutation") from error
    _require(isinstance(path, str) and len(path) <= 400 and _is_count(position, 1 << 60) and _is_count(rows))
    return Place(path, position, rows)


def shape_from_json(content: Any) -> tuple[int, ...]:
    """Read a shape; raises as :func:`from_json`."""
    _require(isinstance(content, list) and len(content) <= 8 and all(map(_is_count, content)))
    _require(math.prod(content) < _MOST_ENTRIES)
    return tuple(content)


def renamed(wanted: Wanted, rename: Rename) -> Wanted:
    """Return a key in which the paths of masks and permutations are renamed."""
    return tuple(_renamed(part, rename) for part in wanted)


def _renamed(part: Any, rename: Rename) -> Any:
    if isinstance(part, Recipe):
        return Recipe(tuple(replace(term, base=replace(term.base, path=rename(term.base.path))) for term in part.terms))
    if isinstance(part, Route):
        return Route(*(None if place is None else place._replace(path=rename(place.path)) for place in part))
    return part


def _uniform(field: Any, shape: Any) -> Wanted:
    return _text(field), shape_from_json(shape)


def _bounded(field: Any, shape: Any, bits: Any) -> Wanted:
    return _text(field), shape_from_json(shape), _count(bits, 1 << 10)


def _product(a: Any, b: Any, operation: Any) -> Wanted:
    _require(operation in ("multiply", "matmul"))
    return Recipe.from_json(a), Recipe.from_json(b), operation


def _waves(mask: Any, period: Any, harmonics: Any, scale: Any) -> Wanted:
    _require(isinstance(harmonics, list) and len(harmonics) <= _MOST_HARMONICS)
    numbers = tuple(_count(harmonic, 1 << 16) for harmonic in harmonics)
    _require(_count(period) > 0)
    return Recipe.from_json(mask), period, numbers, _count(scale, 64)


def _signs(mask: Any, field: Any, count: Any) -> Wanted:
    return Recipe.from_json(mask), _text(field), _count(count)


def _bits(mask: Any, count: Any) -> Wanted:
    return Recipe.from_json(mask), _count(count, 128)


def _permutation(count: Any) -> Wanted:
    return (_count(count),)


def _carriage(route: Any, field: Any, shape: Any) -> Wanted:
    undo, apply = route
    both = Route(*(None if place is None else place_from_json(place) for place in (undo, apply)))
    _require(len({place.rows for place in both if place is not None}) == 1)
    return both, _text(field), shape_from_json(shape)


_READ: dict[str, Callable[..., Wanted]] = {
    "uniform": _uniform,
    "bounded": _bounded,
    "product": _product,
    "waves": _waves,
    "signs": _signs,
    "bits": _bits,
    "permutation": _permutation,
    "carriage": _carriage,
}


def _text(value: Any) -> str:
    _require(isinstance(value, str) and len(value) < 16)
    return str(value)


def _count(value: Any, below: int = _MOST_ENTRIES) -> int:
    _require(_is_count(value, below))
    return int(value)


def _is_count(value: Any, below: int = _MOST_ENTRIES) -> bool:
    return type(value) is int and 0 <= value < below


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("not valid")
