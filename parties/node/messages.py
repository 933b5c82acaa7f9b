"""What node and worker say to each other: an assignment, where the others are, and what became of it.

Both sides check what they read: a worker may run a program that somebody else wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from mpc.errors import SottovoceError
from parties.node.material_messages import Material, Prepare, Stored
from parties.node.message_base import Base64, Count, Label, Message, Seconds, Text

SESSION_BYTES = 16
_NAME = r"^[a-z][a-z0-9-]{0,31}$"
_HASH = r"^[0-9a-f]{64}$"
_CERTIFICATE_BYTES = 16 * 1024
_PASS_BYTES = 16 * 1024


class MessageError(SottovoceError, ValueError):
    """A message between node and worker is not what it should be."""


# ---- from the node ------------------------------------------------------------------------------


class Limits(Message):
    """What a worker may use.

    Attributes
    ----------
    cores : int
        Processor cores.
    memory_mb : int
        Memory that it may ask for, in MiB.
    time_seconds : float
        From the beginning of the computation to its end; then it is stopped, and soon killed.
    """

    cores: Annotated[int, Field(ge=1, le=1024)] = 1
    memory_mb: Annotated[int, Field(ge=256, le=2**24)] = 4096
    time_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 3600.0


class Relaying(Message):
    """How this organisation reaches a relay; see :class:`parties.relay.client.RelayAddress`."""

    ca_file: str | None = None
    proxy: str | None = Field(default=None, repr=False)


class Assignment(Message):
    """One attempt of one study, for one worker.

    Attributes
    ----------
    study : dict
        ``study.model_dump(mode="json")``.
    study_hash : str
        Its hash; the worker computes it again and refuses another.
    rank : int
        Ours: the contributors come first, then the other recipients, then the dealer.
    attempt : int
        Which attempt this is, from 1.
    program : str or None
        Text of the study's own program, whose hash is pinned in the study.
    source : dict or None
        Where our rows come from: ``source.model_dump(mode="json")``. It goes to the process that loads
        the data and never to the one that computes. None for who contributes nothing.
    base : str
        Directory below which relative paths of the source lie.
    dry_only : bool
        Whether to stop after the dry run on synthetic data.
    limits : Limits
        What the worker may use.
    connect_seconds : float
        For all workers to be connected.
    relaying : Relaying
        How to reach a relay.
    allow_unconfined : bool
        Whether a program may run where this system cannot keep it from the node's files and processes.
    reaches : tuple of str or None
        ``host:port`` of all that the worker may have to connect to: members, relays, proxy. Where the
        system can, it is kept from other ports, and from datagrams if all hosts are given as addresses.
        None sets no such bounds.
    rows_key : bytes or None
        A secret of the node's own, for the process that loads: it hashes the rows with it
        (:class:`Rows`).
    rows_digest : str or None
        What that hash was when something was opened before. Other rows are not handed over.
    prepare : Prepare or None
        What is to be prepared, if that is what the attempt is for.
    depot : bool
        Whether the node answers :class:`Material`.
    """

    study: dict[str, JsonValue]
    study_hash: Annotated[str, Field(pattern=_HASH)]
    rank: Annotated[int, Field(ge=0, lt=64)]
    attempt: Annotated[int, Field(ge=1, le=1_000_000)]
    program: str | None = Field(default=None, repr=False)
    source: dict[str, JsonValue] | None = Field(default=None, repr=False)
    base: str = "."
    dry_only: bool = False
    limits: Limits = Limits()
    connect_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    relaying: Relaying = Relaying()
    allow_unconfined: bool = False
    reaches: (
        Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=256, strict=False)] | None
    ) = None
    rows_key: Annotated[Base64, Field(min_length=32, max_length=64)] | None = Field(default=None, repr=False)
    rows_digest: Annotated[str, Field(pattern=_HASH)] | None = None
    prepare: Prepare | None = None
    depot: bool = False


class MemberAddress(Message):
    """A worker of this attempt as the others reach it, in rank order.

    Attributes
    ----------
    name : str
        Of the member of the consortium.
    certificate : bytes
        DER: of the member's worker, not of its node.
    host, port : str, int
        Where its node listens; empty and 0 if it does not.
    relay : str or None
        ``https://host[:port]`` of the relay where it can be met.
    """

    name: Annotated[str, Field(pattern=_NAME)]
    certificate: Annotated[Base64, Field(min_length=1, max_length=_CERTIFICATE_BYTES)]
    host: Annotated[str, Field(max_length=255)] = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    relay: Annotated[str, Field(max_length=2000)] | None = None


class Assigned(Message):
    """The first word of a node; what is told to the process that computes."""

    kind: Literal["assigned"] = "assigned"
    assignment: Assignment


class Begin(Message):
    """All workers are ready: who they are, and the session that they agreed on."""

    kind: Literal["begin"] = "begin"
    members: Annotated[tuple[MemberAddress, ...], Field(min_length=2, max_length=64, strict=False)]
    session: Annotated[Base64, Field(min_length=SESSION_BYTES, max_length=SESSION_BYTES)]
    passes: Annotated[Base64, Field(max_length=_PASS_BYTES)] | None = Field(default=None, repr=False)


class Adopt(Message):
    """A connection comes along that the node accepted for this worker."""

    kind: Literal["adopt"] = "adopt"


class Pinned(Message):
    """The node has taken note of which rows these are: they may be computed on."""

    kind: Literal["pinned"] = "pinned"


class Stop(Message):
    """Stop, and tell the others why."""

    kind: Literal["stop"] = "stop"
    reason: Text


# ---- from the worker ----------------------------------------------------------------------------


class Hello(Message):
    """A worker is up: its certificate, and what keeps it in (:mod:`parties.node.enter`)."""

    kind: Literal["hello"] = "hello"
    certificate: Annotated[Base64, Field(min_length=1, max_length=_CERTIFICATE_BYTES)]
    confined_by: Annotated[tuple[Label, ...], Field(max_length=8, strict=False)]


Phase = Literal[
    "starting", "connecting", "joining", "preparing", "dry run", "loading", "computing", "serving", "leaving"
]


class Progress(Message):
    """How far it is.

    Attributes
    ----------
    phase : str
        One of ``starting, connecting, joining, preparing, dry run, loading, computing, serving, leaving``.
    step : str
        What is computed.
    rounds : int
        Of communication, so far, the dry run's included.
    seconds : float
        Since the beginning of the computation.
    away : dict
        Names of members whose connection is lost at present, with the seconds since.
    """

    kind: Literal["progress"] = "progress"
    phase: Phase
    step: Label = ""
    rounds: Count = 0
    seconds: Seconds = 0.0
    away: Annotated[dict[str, Seconds], Field(max_length=64)] = Field(default_factory=dict)


class Rows(Message):
    """Our own rows were loaded and checked.

    Attributes
    ----------
    count : int
        Rows that take part.
    dropped : int
        Rows that were left out since a value was missing, if the study says to do so.
    digest : str or None
        BLAKE2b of the rows, keyed with the node's secret if it gave one: the same rows, the same hash.
    """

    kind: Literal["rows"] = "rows"
    count: Count
    dropped: Count = 0
    digest: Annotated[str, Field(pattern=_HASH)] | None = None


class Opening(Message):
    """Something was opened: what and to whom, never the values.

    Attributes
    ----------
    step : str
        Where in the computation; steps of the dry run begin with ``"dry run/"``.
    shapes : tuple
        Of the arrays that were opened together.
    elements : int
        How many values these are.
    to : tuple of int or None
        The ranks who learnt them; None for all.
    digest : str or None
        SHA-256 of the opened values where we learnt them.
    """

    step: Label
    shapes: Annotated[
        tuple[Annotated[tuple[Count, ...], Field(max_length=64, strict=False)], ...],
        Field(max_length=4096, strict=False),
    ]
    elements: Count
    to: Annotated[tuple[Count, ...], Field(max_length=64, strict=False)] | None = None
    digest: Annotated[str, Field(pattern=_HASH)] | None = None


class Opened(Message):
    """Openings since the last message of this kind, in order; each is told exactly once.

    Attributes
    ----------
    openings : tuple of Opening
        At most 100.
    untold : int
        How many more there were that are only counted, because they were too many.
    """

    kind: Literal["opened"] = "opened"
    openings: Annotated[tuple[Opening, ...], Field(max_length=100, strict=False)]
    untold: Count = 0


class StepCosts(Message):
    """What one step cost; see :class:`mpc.costs.StepCost`."""

    rounds: Count = 0
    messages: Count = 0
    bytes_sent: Count = 0
    elements_opened: Count = 0
    triples: Count = 0
    seconds: Seconds = 0.0


class Costs(Message):
    """What it cost, told once before the end, whether that is good or bad.

    Attributes
    ----------
    steps : dict
        By step; those of the dry run begin with ``"dry run/"``.
    wire : dict
        By member's name: bytes sent and received over its connections, with all headers.
    seconds, cpu_seconds : float
        Since the beginning of the computation; computing time of the process.
    peak_memory_bytes : int
        Most memory that the process ever held.
    reconnects : int
        How often a lost connection was made again.
    """

    kind: Literal["costs"] = "costs"
    steps: Annotated[dict[Label, StepCosts], Field(max_length=4096)]
    wire: Annotated[dict[str, Annotated[tuple[Count, Count], Field(strict=False)]], Field(max_length=64)]
    seconds: Seconds
    cpu_seconds: Seconds
    peak_memory_bytes: Count
    reconnects: Count = 0


class Finished(Message):
    """The attempt has succeeded; the last event.

    Attributes
    ----------
    result : dict or None
        What we learn of it; None if we are no recipient.
    digest : str or None
        :func:`result_digest` of the result, the same at all recipients.
    """

    kind: Literal["finished"] = "finished"
    result: dict[str, JsonValue] | None = Field(default=None, repr=False)
    digest: Annotated[str, Field(pattern=_HASH)] | None = None


class Failed(Message):
    """The attempt has failed; the last event.

    Attributes
    ----------
    error_type : str
        Name of the class of the error; ``"WorkerDied"`` if the process ended without a word,
        ``"TimeLimit"`` if it took too long, ``"Stopped"`` if it was stopped.
    text : str
        For this organisation: what is wrong and what to do. It never holds values, but may count rows
        by column.
    for_peers : str
        What of it the other members may read; empty if nothing but the type.
    culprit : int or None
        The rank at fault, if that is a peer.
    of_peer : bool
        Whether it failed because of a peer: late, away, or failed itself.
    step : str
        Where in the computation.
    phase : str
        As in :class:`Progress`.
    """

    kind: Literal["failed"] = "failed"
    error_type: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,79}$")]
    text: Text = ""
    for_peers: Text = ""
    culprit: Annotated[int, Field(ge=0, lt=64)] | None = None
    of_peer: bool = False
    step: Label = ""
    phase: Phase = "starting"


FromNode = Annotated[Assigned | Begin | Adopt | Pinned | Stored | Stop, Field(discriminator="kind")]
Event = Progress | Rows | Opened | Costs | Material | Finished | Failed
FromWorker = Annotated[Hello | Event, Field(discriminator="kind")]


def from_node(message: object) -> Assigned | Begin | Adopt | Pinned | Stored | Stop:
    """Check a message that a worker got.

    Raises
    ------
    MessageError
        If it is none.
    """
    adapter: TypeAdapter[Assigned | Begin | Adopt | Pinned | Stored | Stop] = TypeAdapter(FromNode)
    checked: Assigned | Begin | Adopt | Pinned | Stored | Stop = _checked(adapter, message)
    return checked


def from_worker(message: object) -> Hello | Event:
    """Check a message that a node got; raises as :func:`from_node`."""
    adapter: TypeAdapter[Hello | Event] = TypeAdapter(FromWorker)
    checked: Hello | Event = _checked(adapter, message)
    return checked


def _checked(adapter: TypeAdapter[Any], message: object) -> Any:
    try:
        return adapter.validate_python(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise MessageError(f"a message that is not valid: {where}: {first['type']}") from None


def as_json(message: BaseModel) -> dict[str, Any]:
    """Return a message as what JSON knows."""
    return message.model_dump(mode="json")


def result_digest(result: Mapping[str, Any]) -> str:
    """Return the hash by which a result is named in records, the same at all who have the same result.

    All members read it. The result holds a salt that only recipients have, or whoever can guess the result
    could check the guess.
    """
    from parties.governance.canonical import canonical, digest

    return digest("sottovoce result 1", canonical(result))
