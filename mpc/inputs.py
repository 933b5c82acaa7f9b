"""Input sharing: own data is checked here, before a single byte leaves."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.bit_inputs import share_bits
from mpc.errors import AgreementError, DataError, PeerError, RangeError
from mpc.share import FRACTION_BITS, Share, all_integers, ceil_scaled, python_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.transport import Buffer

_HEADER_LIMIT = 1024
_MOST_AXES = 8
_MOST_ENTRIES = 1 << 28  # of one array of one party: 4 GiB over F127, which all others allocate on its word
Expected = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What everybody may know of an input."""

    shape: tuple[int, ...]
    scale: int
    magnitude: int
    field: str

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        content = [list(self.shape), self.scale, str(self.magnitude), self.field]
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: Buffer) -> Header:
        """Decode and check what a peer sent; ``ValueError`` if it is no header."""
        try:
            shape, scale, magnitude, field = json.loads(bytes(data))
        except (TypeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError("not a header") from error
        lengths_are_sane = (
            isinstance(shape, list)
            and len(shape) <= _MOST_AXES
            and all(type(length) is int and 0 <= length <= _MOST_ENTRIES for length in shape)
            and math.prod(shape) <= _MOST_ENTRIES
        )
        if not (
            lengths_are_sane
            and type(scale) is int
            and 0 <= scale < 128
            and isinstance(magnitude, str)
            and magnitude.isdecimal()
            and len(magnitude) < 100
            and isinstance(field, str)
            and field.isascii()
            and field.isprintable()
            and len(field) < 20
        ):
            raise ValueError("not a header")
        return cls(tuple(shape), scale, int(magnitude), field)


def prepare(
    values: Any, *, bound: float, field: Field, rank: int, scale: int = FRACTION_BITS, shape: Expected | None = None
) -> tuple[Header, FieldArray]:
    """Check our own values against the bound and the agreed shape, and encode them.

    Raises
    ------
    DataError
        Naming party, columns and counts.
    RangeError
        If the bound does not fit the field.
    """
    array = _as_numbers(values, rank)
    if array.size > _MOST_ENTRIES or array.ndim > _MOST_AXES:
        raise DataError(
            f"party {rank}: the input has shape {array.shape}; at most {_MOST_ENTRIES} entries and {_MOST_AXES} axes "
            "are shared at once: share it in parts"
        )
    if not fits(array.shape, shape):
        raise DataError(f"party {rank}: the input has shape {array.shape}, agreed is {_named(shape)}")
    fixed_point = array.dtype.kind == "f"
    scale = scale if fixed_point else 0
    magnitude = _checked_magnitude(bound, scale, field)
    if fixed_point:
        _refuse(~np.isfinite(array), "NaN or infinite", "drop or impute these rows before sharing", array, rank)
    _refuse(_exceeds(array, bound), f"beyond the agreed bound of {bound:g}", _WHAT_TO_DO, array, rank)
    # Rounding to the grid may carry a value at the bound half a unit beyond; the magnitude covers it.
    encoded = field.encode_fixed(array, scale) if fixed_point else field.encode(array)
    return Header(array.shape, scale, magnitude, field.name), encoded


_WHAT_TO_DO = "agree on a wider bound in the study, or correct these values"


def _checked_magnitude(bound: float, scale: int, field: Field) -> int:
    magnitude = ceil_scaled(bound, scale)
    if magnitude > field.half:
        raise RangeError(
            f"a bound of 2^{magnitude.bit_length() - scale} with {scale} fraction bits does not fit {field}: "
            "declare a tighter bound, scale the data, or use a larger field"
        )
    return magnitude


def _as_numbers(values: Any, rank: int) -> NDArray[Any]:
    if "numpy.ma" in sys.modules and np.ma.is_masked(values):
        raise DataError(f"party {rank}: the input has masked entries; drop or impute them before sharing")
    array = np.asarray(values)
    if array.dtype.kind == "f" and isinstance(values, list | tuple):
        objects = np.array(values, dtype=object)
        if objects.size and all_integers(objects):  # numpy turns a list of very large integers into floats
            array = objects
    if array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.dtype.kind == "O" and array.size:
        if all_integers(array):
            return python_integers(array)
        if all(isinstance(v, int | float | np.integer | np.floating) for v in array.flat):
            return array.astype(np.float64)
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    raise DataError(f"party {rank}: the input is not made of numbers (numpy dtype {array.dtype})")


def _exceeds(array: NDArray[Any], bound: float) -> NDArray[np.bool_]:
    limit: Any = bound if array.dtype.kind == "f" else math.floor(bound)
    if array.dtype.kind in "iu":
        # numpy compares int64 with Python integers of any size exactly.
        info = np.iinfo(array.dtype)
        high = array > limit if limit < info.max else np.zeros(array.shape, np.bool_)
        low = array < -limit if -limit > info.min else np.zeros(array.shape, np.bool_)
        return np.asarray(high | low)
    return np.asarray(np.abs(array) > limit, dtype=np.bool_)


def _refuse(bad: NDArray[np.bool_], what: str, remedy: str, array: NDArray[Any], rank: int) -> None:
    count = int(np.count_nonzero(bad))
    if not count:
        return
    where = ""
    if array.ndim >= 2:
        by_column = np.count_nonzero(bad, axis=tuple(range(array.ndim - 1)))
        columns = [f"{j} ({by_column[j]})" for j in np.flatnonzero(by_column)[:10]]
        more = ", ..." if np.count_nonzero(by_column) > 10 else ""
        where = f" in column{'s' if len(columns) > 1 else ''} {', '.join(columns)}{more}"
    raise DataError(f"party {rank}: {count} of {array.size} values are {what}{where}; {remedy}")


def fits(shape: tuple[int, ...], expected: Expected | None) -> bool:
    """Return whether a shape is as expected: axis by axis, where None stands for any length."""
    if expected is None:
        return True
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(agreed in (None, length) for length, agreed in pairs)


def _named(expected: Expected | None) -> str:
    return str(expected if expected is None else tuple(expected)).replace("None", "any")


async def share_own(
    party: Party, values: Any, *, bound: float, field: Field, scale: int, shape: Expected | list[Expected] | None
) -> list[Share]:
    """Every party shares its own values; see :meth:`mpc.party.Party.share`."""
    shapes = shape if isinstance(shape, list) else [shape] * party.size
    if len(shapes) != party.size:
        raise ValueError(f"{len(shapes)} shapes for {party.size} parties")
    header, encoded = prepare(values, bound=bound, field=field, rank=party.rank, scale=scale, shape=shapes[party.rank])
    step, cost = party.next_step("header"), party.cost_of("header")
    cost.rounds += 1
    for other in party.others:
        await party.send(other, step, header.to_bytes(), cost)
    headers = {party.rank: header}
    for other in party.others:
        headers[other] = await _receive_header(party, other, step)
        _agree(header, headers[other], other, party.rank)
        _require_shape(headers[other], shapes[other], other, party.rank)
    party.heard(step, {rank: said.to_bytes() for rank, said in headers.items()})
    return [
        await _expand(party, owner, headers[owner], field, encoded if owner == party.rank else None)
        for owner in range(party.size)
    ]


async def share_owned(
    party: Party, values: Any, *, bound: float, owner: int, field: Field, shape: Expected | None, scale: int
) -> Share:
    """One party shares its values; see :meth:`mpc.party.Party.share`."""
    if not 0 <= owner < party.size:
        raise ValueError(f"there is no party {owner} among {party.size}")
    if values is not None and shape is None:
        shape = np.shape(values)
    step, cost = party.next_step("header"), party.cost_of("header")
    cost.rounds += 1
    if owner == party.rank:
        if values is None:
            raise DataError(f"party {party.rank}: we own this input, but there are no values")
        header, encoded = prepare(values, bound=bound, field=field, rank=party.rank, scale=scale, shape=shape)
        for other in party.others:
            await party.send(other, step, header.to_bytes(), cost)
        party.heard(step, {owner: header.to_bytes()})
        return await _expand(party, owner, header, field, encoded)
    received = await _receive_header(party, owner, step)
    expected_scale = scale if received.scale else 0
    magnitude = _checked_magnitude(bound, expected_scale, field)
    _require_shape(received, shape, owner, party.rank)
    _agree(Header(received.shape, expected_scale, magnitude, field.name), received, owner, party.rank)
    party.heard(step, {owner: received.to_bytes()})
    return await _expand(party, owner, received, field, None)


async def agree(party: Party, name: str, terms: str) -> None:
    """Make sure that all parties name the same public terms: parameters, columns, bounds.

    Parameters
    ----------
    party : Party
    name : str
        What the terms are of; stands in the error.
    terms : str
        Any text; only a digest travels, so it may be long.

    Raises
    ------
    AgreementError
        Naming the first party whose terms differ from ours.

    Notes
    -----
    Terms are public among the parties. Cost: 1 round of 32 bytes.
    """
    digest = hashlib.blake2b(terms.encode(), digest_size=32, person=b"sottovoce.terms").digest()
    step, cost = party.next_step(f"agree on {name}"), party.cost_of("agree")
    cost.rounds += 1
    for other in party.others:
        await party.send(other, step, digest, cost)
    received = {other: bytes(await party.transport.receive(other, step, len(digest))) for other in party.others}
    party.heard(step, received | {party.rank: digest})
    for other in sorted(received):
        if received[other] != digest:
            raise AgreementError(
                f"party {other} and party {party.rank} do not name the same {name}: "
                "parameters come from the agreed study and are the same at all parties"
            )


async def _receive_header(party: Party, other: int, step: str) -> Header:
    try:
        return Header.from_bytes(await party.transport.receive_upto(other, step, _HEADER_LIMIT))
    except ValueError as error:
        raise PeerError(f"party {other} sent no valid header at step {step!r}", rank=other, step=step) from error


def _agree(ours: Header, theirs: Header, other: int, rank: int) -> None:
    if theirs.field != ours.field:
        raise AgreementError(f"party {other} shares over {theirs.field}, party {rank} over {ours.field}")
    if theirs.scale != ours.scale:
        kinds = [f"floats with {h.scale} fraction bits" if h.scale else "integers" for h in (theirs, ours)]
        raise AgreementError(f"party {other} shares {kinds[0]}, party {rank} {kinds[1]}: convert one")
    if theirs.magnitude != ours.magnitude:
        unit = 1 << ours.scale
        raise AgreementError(
            f"party {other} declares a bound of {theirs.magnitude / unit:.6g}, party {rank} of "
            f"{ours.magnitude / unit:.6g}: the bound is agreed in the study"
        )


def _require_shape(theirs: Header, expected: Expected | None, other: int, rank: int) -> None:
    if not fits(theirs.shape, expected):
        raise AgreementError(f"party {other} shares shape {theirs.shape}, party {rank} expects {_named(expected)}")


async def _expand(party: Party, owner: int, header: Header, field: Field, encoded: FieldArray | None) -> Share:
    """Expand our summand: the owner keeps what is left after the others' pseudorandom ones.

    Where parties may cheat, the owner gives its values bit by bit instead.
    """
    if party.guard is not None:
        return await share_bits(party, owner, header, field, encoded)
    if encoded is None:
        try:
            summand = party.pair_stream(owner, "share").elements(field, header.shape)
        except MemoryError:
            raise AgreementError(
                f"party {owner} shares an array of shape {header.shape}, which does not fit into our memory"
            ) from None
    else:
        summand = encoded
        for other in range(party.size):
            if other != owner:
                summand = field.sub(summand, party.pair_stream(other, "share").elements(field, header.shape))
    return Share(field, summand, header.scale, header.magnitude, leads=party.rank == 0)
