"""What a worker asks its node about material, and what the node answers; see :mod:`parties.node.matching`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parties.node.message_base import Base64, Count, Message, Text

_BATCH = r"^[0-9a-f]{32}-[0-9]{1,4}$"
_HASH = r"^[0-9a-f]{64}$"


class Prepare(Message):
    """What an attempt prepares: for how many runs, with how many rows of each contributor."""

    runs: Annotated[int, Field(ge=1, le=100)]
    rows: Annotated[int, Field(ge=0, le=10_000_000)]


class OfferOf(Message):
    """What a node says of one batch."""

    name: Annotated[str, Field(pattern=_BATCH)]
    state: Literal["made", "ready", "spent", "discarded"]
    matching: Annotated[str, Field(max_length=64)]


class Material(Message):
    """A worker's request; one at a time, each is answered with :class:`Stored`.

    Attributes
    ----------
    ask : str
        As the methods of :class:`parties.node.matching.Keeper`.
    name : str
        Of the batch.
    why, matching, products
        What goes with it.
    """

    kind: Literal["material"] = "material"
    ask: Literal["offers", "discard", "begin", "made", "ready", "spend", "close"]
    name: Annotated[str, Field(pattern=_BATCH)] | None = None
    why: Text = ""
    matching: Annotated[str, Field(pattern=_HASH)] | None = None
    products: Count = 0


class Stored(Message):
    """The node's answer.

    Attributes
    ----------
    ok : bool
        Whether it was done, and is on the disk.
    text : str
        Why not.
    offers : tuple of OfferOf
    key : bytes or None
        Of one sealed file. The socket on which its bytes go comes along.
    study, salt : str
        What the file's header holds.
    """

    kind: Literal["stored"] = "stored"
    ok: bool = True
    text: Text = ""
    offers: Annotated[tuple[OfferOf, ...], Field(max_length=512, strict=False)] = ()
    key: Annotated[Base64, Field(min_length=32, max_length=32)] | None = Field(default=None, repr=False)
    study: Annotated[str, Field(pattern=_HASH)] | None = None
    salt: Annotated[str, Field(pattern=_HASH)] | None = None
