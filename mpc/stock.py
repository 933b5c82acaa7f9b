"""Material on a disk: what was prepared, as bytes that a later session reads.

Only material that stands for itself can be kept: with oblivious transfer our summand of a mask is all that we ever
need of it, also for products that nobody foresaw. With a dealer or pseudorandom sharing, a mask is a place in a
stream of a session's seeds, and ends with the session.

Form: one record an item, a header in JSON behind its length (four bytes), then the arrays that it describes, as they
go over the wire; a length of zero ends it. Nothing is ever unpickled, and every length is checked before it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mpc import wanted as keys
from mpc.errors import SottovoceError
from mpc.prepare import Stock
from mpc.preprocessing.answers import Local
from mpc.preprocessing.carriages import DealtMasks
from mpc.preprocessing.ot import OtMask
from mpc.preprocessing.permutations import Permutation
from mpc.preprocessing.requests import Base, Recipe
from mpc.preprocessing.serve import field_named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.preprocessing import Preprocessing
    from mpc.preprocessing.permutations import Place
    from mpc.wanted import Rename, Wanted

KEPT = ("ot",)
_LENGTH = struct.Struct(">I")
_HEADER_BYTES = 1 << 20
_MOST_BYTES = 1 << 33  # of one array
_MOST_PATH = 400
_MOST_SCOPES = 64
_ROWS = np.dtype("<u4")


class StockError(SottovoceError, ValueError):
    """Material that cannot be kept, or bytes that are none."""


class Record(NamedTuple):
    """One item of a stock.

    Attributes
    ----------
    path : str
        The scope that will ask for it.
    wanted : tuple
        What it will ask for.
    item : Any
    scopes : tuple of str
        Labels of the sub-scopes that were opened to make it.
    """

    path: str
    wanted: Wanted
    item: Any
    scopes: tuple[str, ...]


class Tally:
    """What is public about a stock, as records go by: a hash of its structure, and how much it is.

    Attributes
    ----------
    items, products : int
        Items, and entries of products.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"sottovoce stock 1\n")
        self.items = 0
        self.products = 0

    def add(self, public: list[Any], entries: int) -> None:
        """Count one record, by the part of its header that is the same at all parties."""
        self._hash.update(json.dumps(public, separators=(",", ":"), sort_keys=True).encode() + b"\n")
        self.items += 1
        self.products += entries

    @property
    def structure(self) -> str:
        """The hash over all that was counted; equal at all parties whose material belongs together."""
        return self._hash.hexdigest()


def records_of(stock: Stock) -> Iterator[Record]:
    """Yield what a stock holds.

    Raises
    ------
    StockError
        It is of a preprocessing whose material ends with its session.
    """
    if stock.name not in KEPT:
        raise StockError(f"material of {stock.name!r} ends with its session: only that of 'ot' can be kept")
    for path, wanted, item, scopes in stock.items():
        if not isinstance(wanted, tuple):
            raise StockError("an item of no kind that is known")
        yield Record(path, wanted, item, scopes)


# ---- writing --------------------------------------------------------------------------------------


def encode(record: Record, tally: Tally) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a record, and count it.

    Raises
    ------
    StockError
        The item cannot be kept.
    """
    public, private, arrays, entries = _described(record)
    head = [record.path, keys.to_json(record.wanted), list(record.scopes), public, private]
    header = json.dumps(head, separators=(",", ":")).encode()
    if not 0 < len(header) <= _HEADER_BYTES:
        raise StockError("an item with too long a description")
    tally.add(head[:4], entries)
    yield _LENGTH.pack(len(header)) + header
    yield from arrays


def end() -> bytes:
    """Return what ends a stock."""
    return _LENGTH.pack(0)


def _described(record: Record) -> tuple[list[Any], list[Any], list[memoryview], int]:
    """Return what is public of an item, what is ours, its arrays, and how many entries of products it has."""
    kind, item = record.wanted[0], record.item
    if kind in ("uniform", "bounded"):
        mask = _kept_mask(item)
        return ["mask", mask.pieces, mask.bits, mask.recipe.to_json()], [], [mask.field.to_bytes(mask.summand)], 0
    if kind == "bits" and item is None:
        return ["none"], [], [], 0
    if kind in ("product", "waves", "signs"):
        field = _field_of(record.wanted)
        return ["values", list(item.shape)], [], [field.to_bytes(item)], item.size
    if kind == "permutation" and isinstance(item, Permutation):
        known = [factor is not None for factor in item.factors]
        factors = [np.ascontiguousarray(factor, _ROWS) for factor in item.factors if factor is not None]
        return ["permutation", list(item.place), len(known)], known, [one.view(np.uint8).data for one in factors], 0
    if kind == "carriage" and isinstance(item, DealtMasks) and isinstance(item.after, Local):
        field, after = field_named(record.wanted[2]), item.after.values
        masks = [item.before, *item.between]
        known = [mask is not None for mask in masks]
        arrays = [field.to_bytes(mask) for mask in (*masks, after) if mask is not None]
        return ["material", len(item.between)], known, arrays, after.size
    raise StockError(f"an item of kind {kind!r} that cannot be kept")


def _kept_mask(mask: Any) -> OtMask:
    if not isinstance(mask, OtMask):
        raise StockError("a mask that ends with its session: only those of 'ot' can be kept")
    return mask


def _field_of(wanted: Wanted) -> Field:
    """Return the field of what is asked for."""
    kind = wanted[0]
    if kind in ("uniform", "bounded"):
        return field_named(wanted[1])
    if kind in ("signs", "carriage"):
        return field_named(wanted[2])
    return field_named(wanted[1].terms[0].base.field)


# ---- reading --------------------------------------------------------------------------------------


def decode(read: Callable[[int], bytes | memoryview], tally: Tally) -> Iterator[Record]:
    """Read records until their end, and count them.

    Parameters
    ----------
    read : callable
        Returns exactly so many bytes, or raises.
    tally : Tally

    Raises
    ------
    StockError
        It is no stock. Whatever ``read`` raises passes.
    """
    while True:
        (length,) = _LENGTH.unpack(read(_LENGTH.size))
        if length == 0:
            return
        if length > _HEADER_BYTES:
            raise StockError("an item with too long a description")
        try:
            head = json.loads(bytes(read(length)))
            path, wanted, scopes, public, private = head
            key = keys.from_json(wanted)
            if not isinstance(path, str) or len(path) > _MOST_PATH or not _are_texts(scopes):
                raise ValueError("no item")
            item, entries = _read_item(key, public, private, read)
        except StockError:
            raise
        except (TypeError, ValueError, RecursionError, IndexError):
            raise StockError("an item that cannot be read") from None
        tally.add(head[:4], entries)
        yield Record(path, key, item, tuple(scopes))


def _read_item(wanted: Wanted, public: Any, private: Any, read: Callable[[int], Any]) -> tuple[Any, int]:
    kind = wanted[0]
    match public:
        case ["mask", int(pieces), int(bits), recipe] if kind in ("uniform", "bounded"):
            field = field_named(wanted[1])
            if not 0 < bits <= field.bits:
                raise ValueError("no such bits")
            return OtMask(field, _array(read, field, wanted[2]), Recipe.from_json(recipe), pieces, bits), 0
        case ["none"] if kind == "bits":
            return None, 0
        case ["values", shape] if kind in ("product", "waves", "signs"):
            values = _array(read, _field_of(wanted), keys.shape_from_json(shape))
            return values, values.size
        case ["permutation", place, int(factors)] if kind == "permutation":
            where = keys.place_from_json(place)
            if where.rows != wanted[1] or not _are_flags(private, factors):
                raise ValueError("no permutation")
            return Permutation(where, [_factor(read, where.rows) if known else None for known in private]), 0
        case ["material", int(between)] if kind == "carriage":
            field, shape = field_named(wanted[2]), wanted[3]
            if not _are_flags(private, between + 1):
                raise ValueError("no material")
            before, *rest = [_array(read, field, shape) if known else None for known in private]
            after = _array(read, field, shape)
            return DealtMasks(before, rest, Local(after)), after.size
    raise ValueError("no item")


def _array(read: Callable[[int], Any], field: Field, shape: tuple[int, ...]) -> FieldArray:
    size = math.prod(shape) * field.element_bytes
    if size > _MOST_BYTES:
        raise ValueError("too large")
    # A copy: what was read may be a part of a larger piece, or not begin where elements like to.
    return field.from_bytes(bytearray(read(size)), shape)


def _factor(read: Callable[[int], Any], rows: int) -> NDArray[np.intp]:
    factor = np.frombuffer(read(rows * _ROWS.itemsize), _ROWS).astype(np.intp)
    if not np.array_equal(np.sort(factor), np.arange(rows)):
        raise ValueError("no permutation")
    return factor


def _are_flags(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count <= 64 and all(type(one) is bool for one in value)


def _are_texts(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > _MOST_SCOPES:
        return False
    return all(isinstance(one, str) and len(one) <= 60 for one in value)


# ---- using ----------------------------------------------------------------------------------------


def stocked(source: Preprocessing, records: Iterator[Record], name: str) -> Stock:
    """Return a preprocessing that gives out what was kept, and takes from the source what was not.

    Parameters
    ----------
    source : Preprocessing
        Of the session that begins; "ot" like the one that made the material.
    records : iterator of Record
    name : str
        Of the material: what it calls its masks is never what this session calls one.

    Raises
    ------
    StockError
        The source is another preprocessing.
    """
    if source.name not in KEPT:
        raise StockError(f"a session with {source.name!r} has no use for material that was kept")
    stock = Stock(source, strict=False)

    def rename(path: str) -> str:
        return f"{name}|{path}"  # no scope has such a path

    for path, wanted, item, scopes in records:
        if isinstance(item, OtMask):
            # The key is by field and shape; the mask says itself where it was drawn.
            recipe = _renamed_recipe(item.recipe, rename)
            item = OtMask(item.field, item.summand, recipe, item.pieces, item.bits)
        elif isinstance(item, Permutation):
            item = Permutation(item.place._replace(path=rename(item.place.path)), item.factors)
        stock.put(path, keys.renamed(wanted, rename), item, scopes)
    return stock


def _renamed_recipe(recipe: Recipe, rename: Rename) -> Recipe:
    (renamed,) = keys.renamed((recipe,), rename)
    result: Recipe = renamed
    return result


def mask_at(field: Field, mask: OtMask, base: Base) -> OtMask:
    """Return a mask under another name."""
    return OtMask(field, mask.summand, Recipe.of(base), mask.pieces, mask.bits)


def permutation_at(permutation: Permutation, place: Place) -> Permutation:
    """Return a permutation under another name."""
    return Permutation(place, permutation.factors)
