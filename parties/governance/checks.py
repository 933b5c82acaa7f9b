"""What names, texts, addresses and times may be, and what is told when they are not."""

from __future__ import annotations

import datetime
import ipaddress
import re
import unicodedata
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from parties.governance.canonical import canonical
from parties.governance.errors import CanonicalError, GovernanceError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HEX = re.compile(r"[0-9a-f]*")
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_LONGEST_MESSAGE = 300


class Strict(BaseModel):
    """What comes from outside: no other fields, no conversions, never changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


# Not Literal[1], which takes true for 1: two texts would have one meaning.
FormatOne = Annotated[int, Field(ge=1, le=1)]
Model = TypeVar("Model", bound=BaseModel)


def from_plain(model: type[Model], value: object, what: str, error: type[GovernanceError]) -> Model:
    """Make a model of a value of JSON's types.

    Raises
    ------
    GovernanceError
        Of the given class, in one line: what, which key, and what it takes.
    """
    try:
        return model.model_validate_json(canonical(value))
    except CanonicalError as failure:
        raise error(f"{what}: {failure}") from None
    except ValidationError as failure:
        raise error(f"{what}: {first_fault(failure)}") from None


def first_fault(failure: ValidationError) -> str:
    """Say in one line which key is at fault first and why, without the value that stood there."""
    faults = failure.errors(include_url=False, include_input=False)
    first = faults[0]
    parts = (f"entry {part + 1}" if isinstance(part, int) else part for part in first["loc"])
    place = ", ".join(parts)
    text = _MEANINGS.get(first["type"], first["msg"]).removeprefix("Value error, ")
    line = f"{place}: {text}" if place else text
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return one_line(line) + more


_MEANINGS = {"extra_forbidden": "there is no such key", "missing": "is missing", "model_type": "is not a table"}


def one_line(text: str, longest: int = _LONGEST_MESSAGE) -> str:
    """Return text that is safe in a terminal and a log: printable, in one line, not too long."""
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return safe if len(safe) <= longest else safe[: longest - 3] + "..."


# ---- names and texts ------------------------------------------------------------------------------


def is_name(text: str) -> bool:
    """Whether this may name a member or a consortium."""
    return _NAME.fullmatch(text) is not None


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("a name is a lower-case letter, then at most 31 letters, digits or hyphens")
    return text


def printable(text: str, longest: int, *, shortest: int = 1, lines: bool = False) -> str:
    """Return text that shows as what it is.

    Control characters steer terminals, and invisible ones and changes of direction make a text read as
    another: all of these are not printable in Unicode's sense. Two ways to write one letter are two texts
    that look alike: only the composed form is taken.

    Raises
    ------
    ValueError
        Naming what is wrong; not the text.
    """
    if not shortest <= len(text) <= longest:
        raise ValueError(f"takes {shortest} to {longest} characters")
    shown = text.replace("\n", "") if lines else text
    if not shown.isprintable():
        bad = next(char for char in shown if not char.isprintable())
        raise ValueError(f"holds a character that does not show (U+{ord(bad):04X})")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("holds letters in decomposed form; write them composed (Unicode NFC)")
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    return text


def _line(longest: int, shortest: int = 1) -> AfterValidator:
    return AfterValidator(lambda text: printable(text, longest, shortest=shortest))


def _hexadecimal(digits: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text) != digits or not _HEX.fullmatch(text):
            raise ValueError(f"takes {digits} hexadecimal digits in lower case")
        return text

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_name)]
ShortText = Annotated[str, _line(120)]
Unit = Annotated[str, _line(40, shortest=0)]
Reason = Annotated[str, _line(500)]
Paragraph = Annotated[str, AfterValidator(lambda text: printable(text, 2000, lines=True))]
Hex256 = Annotated[str, _hexadecimal(64)]
Hex512 = Annotated[str, _hexadecimal(128)]


# ---- addresses ------------------------------------------------------------------------------------


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` (an IPv6 address stands in brackets).

    Raises
    ------
    ValueError
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 1 <= int(port[:6]) <= 65535 or len(port) > 5:
        raise ValueError("an address is host:port, such as mpc.hospital.example:8443")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise ValueError("an address in brackets is an IPv6 address, such as [2001:db8::1]:8443") from None
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError("an address is host:port, such as mpc.hospital.example:8443")
    return host, int(port)


def _address(text: str) -> str:
    parse_address(text)
    return text


def _relay(text: str) -> str:
    refused = ValueError("a relay is https://host or https://host:port")
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise refused
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise refused from None
    if parts.scheme != "https" or parts.path or parts.query or parts.fragment or parts.username is not None:
        raise refused
    parse_address(parts.netloc if port is not None else f"{parts.netloc}:443")
    return text


Address = Annotated[str, AfterValidator(_address)]
Relay = Annotated[str, AfterValidator(_relay)]


# ---- times ----------------------------------------------------------------------------------------


def write_time(moment: datetime.datetime) -> str:
    """Write a moment as UTC, in seconds: ``2030-12-31T17:00:00Z``.

    Raises
    ------
    ValueError
        If it has no time zone, or is not between the years 2000 and 2200.
    """
    if moment.tzinfo is None:
        raise ValueError("takes a time with its offset from UTC")
    if not 2000 < moment.year < 2200:
        raise ValueError("is not between the years 2000 and 2200")
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str) -> datetime.datetime:
    """Read what :func:`write_time` wrote.

    Raises
    ------
    ValueError
    """
    if not _TIME.fullmatch(text):
        raise ValueError("a time is written in UTC, such as 2030-12-31T17:00:00Z")
    moment = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    if write_time(moment) != text:
        raise ValueError("a time is written in UTC, such as 2030-12-31T17:00:00Z")
    return moment


def _time(text: str) -> str:
    read_time(text)
    return text


Time = Annotated[str, AfterValidator(_time)]


def short(value: Any, longest: int = 60) -> str:
    """Show a public value in a sentence."""
    return one_line(repr(value) if isinstance(value, str) else str(value), longest)
