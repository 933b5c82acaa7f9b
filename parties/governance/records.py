"""Records: what members state about a study, signed, so that nobody can say it for them or for another study.

A signature covers the consortium, the author, the kind, the study's hash, the body, the time and the key,
under a domain of its own: an approval is nothing but the approval of that study by that member.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from parties.errors import IdentityError
from parties.governance.canonical import canonical, digest, parse_canonical
from parties.governance.checks import (
    FormatOne,
    Hex256,
    Hex512,
    Name,
    Reason,
    Strict,
    Time,
    from_plain,
    printable,
    write_time,
)
from parties.governance.consortium import Consortium, Member
from parties.governance.errors import CanonicalError, KeyFileError, RecordError, StudyError
from parties.governance.keys import NodeKey, public_key, verify
from parties.governance.studies import Study, check_program, study_of
from parties.identity import host_name

DOMAIN = "sottovoce record 1"
LIMIT = 512 * 1024
Kind = Literal["proposal", "approval", "rejection", "cancellation", "run", "ready", "outcome"]


def _certificate(text: str) -> str:
    try:
        certificate = base64.b64decode(text, validate=True)
        public_key(certificate)
        host_name(certificate)
    except (binascii.Error, ValueError, KeyFileError, IdentityError):
        raise ValueError("takes a worker's certificate (DER, base64)") from None
    if base64.b64encode(certificate).decode("ascii") != text:
        raise ValueError("takes a worker's certificate (DER, base64)")
    return text


def _text(longest: int, shortest: int = 0) -> AfterValidator:
    return AfterValidator(lambda text: printable(text, longest, shortest=shortest))


# ---- bodies ---------------------------------------------------------------------------------------


class Proposal(Strict):
    """The study itself, and its program's text."""

    study: dict[str, Any]
    program: str | None = None

    def content(self) -> tuple[Study, str | None]:
        """Return the study and the text of its program, both checked."""
        study = study_of(self.study)
        if canonical(study.plain()) != canonical(self.study):  # else two bodies would have one hash
            raise StudyError("study: not in the form that is hashed (are fields missing that have defaults?)")
        return study, check_program(study, self.program)

    @model_validator(mode="after")
    def _holds_a_study(self) -> Proposal:
        self.content()
        return self


class Approval(Strict):
    """Nothing: the record says it all."""


class Rejection(Strict):
    """Why the study is not approved."""

    reason: Reason


class Cancellation(Strict):
    """Why the study ends."""

    reason: Reason


Attempt = Annotated[int, Field(ge=1, le=1000)]


class Preparation(Strict):
    """Material is to be made: for how many runs, and for how many rows of each contributor, as far as is known."""

    runs: Annotated[int, Field(ge=1, le=100)]
    rows: Annotated[int, Field(ge=0, le=10_000_000)]


class Run(Strict):
    """An attempt is to begin; one that prepares material is a dry one."""

    attempt: Attempt
    dry: bool
    prepare: Preparation | None = None

    @model_validator(mode="after")
    def _prepares_dry(self) -> Run:
        if self.prepare is not None and not self.dry:
            raise ValueError("what prepares material touches no data")
        return self


class Ready(Strict):
    """Our worker of an attempt stands by.

    Attributes
    ----------
    attempt : int
    dry : bool
        Whether it stands by for a dry run. All must say the same: whoever asks for an attempt later, and in
        another way, does not change what it was.
    prepare : Preparation or None
        What it stands by to prepare.
    certificate : str
        Of the worker; DER in base64.
    nonce : str
        32 fresh random bytes, hexadecimal.
    version : str
        Of the software.
    fingerprint : str
        Of our copy of the consortium file.
    """

    attempt: Attempt
    certificate: Annotated[str, Field(max_length=4096), AfterValidator(_certificate)]
    dry: bool
    nonce: Hex256
    prepare: Preparation | None = None
    version: Annotated[str, _text(80, 1)]
    fingerprint: Annotated[str, _text(80, 1)]


class Head(Strict):
    """The last entry of the author's audit log."""

    number: Annotated[int, Field(ge=0)]
    hash: Hex256


class Outcome(Strict):
    """How an attempt ended at the author's node.

    Attributes
    ----------
    attempt : int
    ok : bool
    error_type, text : str
        Free of data; empty if all went well.
    culprit : str or None
        The member at fault, as far as known.
    retry : bool
        Whether another attempt may succeed.
    result : str or None
        Digest of the result; None if there is none here.
    audit : Head
    """

    attempt: Attempt
    ok: bool
    error_type: Annotated[str, _text(100)] = ""
    text: Annotated[str, _text(1000)] = ""
    culprit: Name | None = None
    retry: bool = False
    result: Hex256 | None = None
    audit: Head

    @model_validator(mode="after")
    def _says_one_thing(self) -> Outcome:
        if self.ok and (self.error_type or self.culprit is not None or self.retry):
            raise ValueError("an attempt that went well has no error")
        if not self.ok and (not self.error_type or self.result is not None):
            raise ValueError("an attempt that failed has an error and no result")
        return self


BODIES: dict[str, type[Strict]] = {
    "proposal": Proposal,
    "approval": Approval,
    "rejection": Rejection,
    "cancellation": Cancellation,
    "run": Run,
    "ready": Ready,
    "outcome": Outcome,
}


# ---- records --------------------------------------------------------------------------------------


class _Envelope(Strict):
    format: FormatOne
    consortium: Name
    kind: Kind
    author: Name
    study: Hex256
    body: dict[str, Any]
    time: Time
    key: Hex256
    signature: Hex512


@dataclass(frozen=True, slots=True)
class Record:
    """One statement.

    Attributes
    ----------
    consortium, author, kind, study : str
        Which member of which consortium says what about the study of this hash.
    body : dict
        See the models above; each is checked by :func:`check`.
    time : str
        UTC, the author's clock.
    key_id, signature : str
        Hexadecimal.
    """

    consortium: str
    author: str
    kind: str
    study: str
    body: dict[str, Any]
    time: str
    key_id: str
    signature: str

    @property
    def id(self) -> str:
        """The digest of what was signed, in hexadecimal."""
        return digest(DOMAIN, self._signed())

    def plain(self) -> dict[str, Any]:
        """Return JSON's types."""
        return {**self._content(), "signature": self.signature}

    def encode(self) -> bytes:
        """Return the record's one sequence of bytes."""
        return canonical(self.plain())

    def _content(self) -> dict[str, Any]:
        return {
            "format": 1,
            "consortium": self.consortium,
            "kind": self.kind,
            "author": self.author,
            "study": self.study,
            "body": self.body,
            "time": self.time,
            "key": self.key_id,
        }

    def _signed(self) -> bytes:
        return canonical(self._content())

    def __repr__(self) -> str:
        return f"Record({self.kind} by {self.author}, study {self.study[:12]}, {self.time})"


def make(
    key: NodeKey,
    consortium_name: str,
    author: str,
    kind: Kind,
    study: str,
    body: dict[str, Any],
    now: datetime.datetime,
) -> Record:
    """Make and sign a record.

    Raises
    ------
    RecordError
        If the body is not what its kind takes, or the record would be too large.
    """
    _body(kind, body, study)
    unsigned = Record(consortium_name, author, kind, study, body, write_time(now), key.key_id, "0" * 128)
    signature = key.sign(DOMAIN, unsigned._signed()).hex()
    return parse(Record(consortium_name, author, kind, study, body, unsigned.time, key.key_id, signature).plain())


def parse(data: bytes | dict[str, Any]) -> Record:
    """Make a record of its bytes (exactly as :meth:`Record.encode` writes them) or of JSON's types.

    The form alone is checked; whether to believe it is up to :func:`check`.

    Raises
    ------
    RecordError
    """
    try:
        if isinstance(data, bytes):
            value = parse_canonical(data, limit=LIMIT)
        else:
            value = data
            if len(canonical(value)) > LIMIT:
                raise CanonicalError(f"more than {LIMIT} bytes")
    except CanonicalError as error:
        raise RecordError(f"record: {error}") from None
    one = from_plain(_Envelope, value, "record", RecordError)
    return Record(one.consortium, one.author, one.kind, one.study, one.body, one.time, one.key, one.signature)


def check(record: Record, consortium: Consortium) -> Member:
    """Check that a record is the statement of the member that it names, and return that member.

    Raises
    ------
    RecordError
        Naming the member and what is wrong: another consortium, an unknown or revoked member, another key, a
        signature that does not fit, a body that its kind does not take.
    """
    who = f"{record.kind} of {record.author}"
    if record.consortium != consortium.name:
        raise RecordError(f"{who} is for the consortium {record.consortium}, here is {consortium.name}")
    gone = consortium.revocation(record.key_id)
    if gone is not None:
        raise RecordError(f"{who}: the key {record.key_id[:12]} of {gone.name} was revoked")
    if record.author not in consortium.names:
        raise RecordError(f"{who}: {record.author} is no member of the consortium {consortium.name}")
    member = consortium.member(record.author)
    if member.key_id != record.key_id:
        raise RecordError(f"{who} is signed with the key {record.key_id[:12]}, not with the key of {record.author}")
    if not verify(member.certificate, DOMAIN, record._signed(), bytes.fromhex(record.signature)):
        raise RecordError(f"{who}: the signature does not fit, so the record was altered")
    _body(record.kind, record.body, record.study)
    return member


def proposed(record: Record) -> tuple[Study, str | None]:
    """Return the study and the program's text that a proposal carries.

    Raises
    ------
    RecordError
        If the record is no proposal, or its study does not have the hash that the record names.
    """
    body = _body(record.kind, record.body, record.study)
    if not isinstance(body, Proposal):
        raise RecordError(f"{record.kind} of {record.author} is no proposal")
    return body.content()


def _body(kind: str, body: dict[str, Any], study: str) -> Strict:
    model = BODIES.get(kind)
    if model is None:
        raise RecordError(f"there is no kind of record {kind!r}")
    parsed = from_plain(model, body, kind, RecordError)
    if isinstance(parsed, Proposal) and parsed.content()[0].hash != study:
        raise RecordError("proposal: the study that it carries does not have the hash that it names")
    return parsed
