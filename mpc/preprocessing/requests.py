"""What the last party asks a dealer for, on the wire: checked at the edge, field by field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.field import F127
from mpc.masks import Structure
from mpc.preprocessing.permutations import Place, Route
from mpc.transport import CHUNK_BYTES
from mpc.words import W64

if TYPE_CHECKING:
    from mpc.field import Field
    from mpc.preprocessing import Operation
    from mpc.transport import Buffer

LEAVE = b"leave"
REQUEST_LIMIT = 16 * 1024
_MOST_ENTRIES = 1 << 31
_MOST_HARMONICS = 4096
_MOST_STRUCTURES = 32  # in all terms of a mask together
MOST_TERMS = 8
_MOST_BYTES = 1 << 33  # of one array, mask or result


@dataclass(frozen=True, slots=True)
class Base:
    """Where a mask begins: scope, position in the scope's streams, field, shape; ``bits`` 0 is uniform.

    A mask with an ``owner`` is known to that party: its summand is drawn, and those of all others are zero.
    """

    path: str
    position: int
    field: str
    shape: tuple[int, ...]
    bits: int
    owner: int | None = None

    def to_json(self) -> list[Any]:
        """Encode as plain lists."""
        owner = [] if self.owner is None else [self.owner]
        return [self.path, self.position, self.field, list(self.shape), self.bits, *owner]

    @classmethod
    def from_json(cls, content: Any) -> Base:
        """Decode and check."""
        path, position, field, shape, bits, *owner = content
        _require(isinstance(path, str) and len(path) <= 400 and isinstance(field, str))
        _require(_is_count(position, 1 << 60) and position % 16 == 0 and _is_count(bits, 1 << 10))
        _require(len(owner) <= 1 and all(_is_count(rank, 1 << 16) for rank in owner))
        return cls(path, position, field, _shape(shape), bits, *owner)


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a mask: a beginning, the local operations since, and a public factor."""

    base: Base
    structures: tuple[Structure, ...] = ()
    factor: int = 1

    def to_json(self) -> list[Any]:
        """Encode as plain lists."""
        return [self.base.to_json(), [[s.kind, list(s.numbers)] for s in self.structures], str(self.factor)]

    @classmethod
    def from_json(cls, content: Any) -> Term:
        """Decode and check; the operations are checked again when they are applied."""
        base, structures, factor = content
        _require(isinstance(structures, list) and len(structures) <= _MOST_STRUCTURES)
        _require(isinstance(factor, str) and len(factor) <= 60 and factor.removeprefix("-").isdecimal())
        return cls(Base.from_json(base), tuple(_structure(*structure) for structure in structures), int(factor))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a mask: a sum of terms."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, base: Base) -> Recipe:
        """Return the recipe of a mask as it was drawn."""
        return cls((Term(base),))

    def after(self, structure: Structure) -> Recipe:
        """Return the recipe with one more operation. All but the shift are linear.

        A sum is never shifted: truncation shifts the mask it has just drawn.
        """
        if structure.kind == "shift" and (len(self.terms) > 1 or self.terms[0].factor != 1):
            raise ValueError("only a mask as it was drawn is shifted")
        terms = (Term(t.base, (*t.structures, structure), t.factor) for t in self.terms)
        return Recipe(tuple(terms))

    def times(self, factor: int, modulus: int) -> Recipe:
        """Return the recipe multiplied by a public integer."""
        half = modulus // 2
        factors = ((t.factor * factor + half) % modulus - half for t in self.terms)
        return Recipe(tuple(Term(t.base, t.structures, f) for t, f in zip(self.terms, factors, strict=True)))

    def plus(self, other: Recipe) -> Recipe | None:
        """Return the recipe of a sum, or None where it would be longer than a request may be."""
        total = Recipe((*self.terms, *other.terms))
        return total if len(total.terms) <= MOST_TERMS and total._steps <= _MOST_STRUCTURES else None

    @property
    def _steps(self) -> int:
        return sum(len(term.structures) for term in self.terms)

    @property
    def is_full(self) -> bool:
        """Whether one more operation would make it longer than a request may be."""
        return self._steps + len(self.terms) > _MOST_STRUCTURES

    def to_json(self) -> list[Any]:
        """Encode as plain lists."""
        return [term.to_json() for term in self.terms]

    @classmethod
    def from_json(cls, content: Any) -> Recipe:
        """Decode and check."""
        _require(isinstance(content, list) and 0 < len(content) <= MOST_TERMS)
        return cls(tuple(Term.from_json(term) for term in content))


@dataclass(frozen=True, slots=True)
class ProductRequest:
    """Deal shares of ``a op b``, padded from ``pad_at`` of the scope's pad stream."""

    a: Recipe
    b: Recipe
    operation: Operation
    path: str
    pad_at: int

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        content = ["product", self.a.to_json(), self.b.to_json(), self.operation, self.path, self.pad_at]
        return json.dumps(content, separators=(",", ":")).encode()

    def result_shape(self, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of ``a op b``."""
        if self.operation == "multiply":
            return np.broadcast_shapes(a, b)
        rows, columns = a[:-1] if len(a) > 1 else (), b[-1:] if len(b) > 1 else ()
        if len(a) > 2 or len(b) > 2:
            return (*np.broadcast_shapes(a[:-2], b[:-2]), *rows[-1:], *columns)
        return (*rows, *columns)


@dataclass(frozen=True, slots=True)
class MacsRequest:
    """Deal the MACs of a mask."""

    mask: Recipe
    path: str
    pad_at: int

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        return json.dumps(["macs", self.mask.to_json(), self.path, self.pad_at], separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class WavesRequest:
    """Deal shares of the cosines and sines of a mask's multiples."""

    mask: Recipe
    period: int
    harmonics: tuple[int, ...]
    scale: int
    path: str
    pad_at: int

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        content = ["waves", self.mask.to_json(), self.period, list(self.harmonics), self.scale, self.path, self.pad_at]
        return json.dumps(content, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class BitsRequest:
    """Deal XOR shares of the lowest bits of a flat mask, in planes."""

    mask: Recipe
    count: int
    path: str
    pad_at: int

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        content = ["bits", self.mask.to_json(), self.count, self.path, self.pad_at]
        return json.dumps(content, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class SignsRequest:
    """Deal shares of ``(-1)^bit`` for the first bits of a flat mask of words."""

    mask: Recipe
    field: str
    count: int
    path: str
    pad_at: int

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        content = ["signs", self.mask.to_json(), self.field, self.count, self.path, self.pad_at]
        return json.dumps(content, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """Deal what corrects one array that is moved from party to party."""

    move: Route
    field: str
    shape: tuple[int, ...]
    path: str
    masks_at: int
    pad_at: int

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        places = [None if place is None else list(place) for place in self.move]
        content = ["move", places, self.field, list(self.shape), self.path, self.masks_at, self.pad_at]
        return json.dumps(content, separators=(",", ":")).encode()


Dealt = ProductRequest | MacsRequest | WavesRequest | BitsRequest | SignsRequest
Request = Dealt | MoveRequest


def parse_request(data: Buffer) -> Request:
    """Decode and check a request; ``ValueError`` if it is none."""
    try:
        content = json.loads(bytes(data))
        _require(isinstance(content, list) and bool(content))
        if content[0] == "product":
            _, a, b, operation, path, pad_at = content
            _require(operation in ("multiply", "matmul") and _is_place(path, pad_at))
            return ProductRequest(Recipe.from_json(a), Recipe.from_json(b), operation, path, pad_at)
        if content[0] == "macs":
            _, mask, path, pad_at = content
            _require(_is_place(path, pad_at))
            return MacsRequest(Recipe.from_json(mask), path, pad_at)
        if content[0] == "bits":
            _, mask, count, path, pad_at = content
            _require(_is_place(path, pad_at) and _is_count(count, 128))
            return BitsRequest(Recipe.from_json(mask), count, path, pad_at)
        if content[0] == "signs":
            _, mask, field, count, path, pad_at = content
            _require(_is_place(path, pad_at) and _is_count(count, _MOST_ENTRIES) and isinstance(field, str))
            return SignsRequest(Recipe.from_json(mask), field, count, path, pad_at)
        if content[0] == "move":
            _, (undo, apply), field, shape, path, masks_at, pad_at = content
            _require(_is_place(path, masks_at) and _is_place(path, pad_at) and isinstance(field, str))
            move = Route(_place(undo), _place(apply))
            _require(len({place.rows for place in move if place is not None}) == 1)
            return MoveRequest(move, field, _shape(shape), path, masks_at, pad_at)
        _require(content[0] == "waves")
        _, mask, period, harmonics, scale, path, pad_at = content
        _require(_is_place(path, pad_at) and _is_count(period, 1 << 31) and period > 0 and _is_count(scale, 64))
        _require(isinstance(harmonics, list) and len(harmonics) <= _MOST_HARMONICS)
        _require(all(_is_count(h, 1 << 16) for h in harmonics))
        return WavesRequest(Recipe.from_json(mask), period, tuple(harmonics), scale, path, pad_at)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("not a request") from error


def answer_chunks(count: int, field: Field) -> list[slice]:
    """Cut an answer of ``count`` elements into messages."""
    most = CHUNK_BYTES // field.element_bytes
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def require_room(field: Field, shape: tuple[int, ...]) -> None:
    """Refuse an array that is too large to be dealt at once, before anybody makes it.

    Raises
    ------
    ValueError
        It takes more than 2^33 bytes.
    """
    if math.prod(shape) * field.element_bytes > _MOST_BYTES:
        raise ValueError(
            f"an array of shape {shape} over {field} is too large for a dealer, who deals at most "
            f"{_MOST_BYTES >> 30} GiB at once: work in parts"
        )


def require_room_to_move(field: Field, shape: tuple[int, ...], rows: int) -> None:
    """Refuse to move an array that is too large; see :func:`require_room`."""
    require_room(F127, (rows,))  # a permutation is drawn by keys of 16 bytes
    require_room(field, (*shape, 8) if field is W64 else shape)  # a word becomes 64 bytes to be moved


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("not a request")


def _is_count(value: Any, below: int) -> bool:
    return type(value) is int and 0 <= value < below


def _is_place(path: Any, pad_at: Any) -> bool:
    return isinstance(path, str) and len(path) <= 400 and _is_count(pad_at, 1 << 60) and pad_at % 16 == 0


def _place(content: Any) -> Place | None:
    if content is None:
        return None
    path, position, count = content
    _require(_is_place(path, position) and _is_count(count, _MOST_ENTRIES))
    return Place(path, position, count)


def _shape(lengths: Any) -> tuple[int, ...]:
    _require(isinstance(lengths, list) and len(lengths) <= 8)
    _require(all(_is_count(length, _MOST_ENTRIES) for length in lengths) and math.prod(lengths) < _MOST_ENTRIES)
    return tuple(lengths)


def _structure(kind: Any, numbers: Any) -> Structure:
    _require(kind in ("reshape", "transpose", "rows", "row", "shift", "digits"))
    _require(isinstance(numbers, list) and len(numbers) <= 8 and all(_is_count(v, _MOST_ENTRIES) for v in numbers))
    _require(len(numbers) == {"transpose": 0, "digits": 0, "rows": 2, "row": 1, "shift": 1}.get(kind, len(numbers)))
    return Structure(kind, tuple(numbers))
