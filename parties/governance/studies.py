"""A study: what is computed on which columns, whose, for whom, under which rules; the same at every member.

Its hash is what members approve: it covers every field here, with defaults filled in, and the program's
text by its own hash.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mpc.session import check_preprocessing, check_security
from parties.governance.canonical import canonical, digest
from parties.governance.catalogue import AnyAnalysis, disclosure_of
from parties.governance.checks import (
    FormatOne,
    Hex256,
    Name,
    Paragraph,
    ShortText,
    Strict,
    Time,
    from_plain,
    read_time,
    short,
)
from parties.governance.consortium import Consortium
from parties.governance.errors import CanonicalError, ConsortiumError, StudyError
from parties.governance.files import read_bounded, shown
from parties.governance.schema import MOST_COLUMNS, Column, Schema, schema_of
from parties.governance.toml import read_toml

DOMAIN = "sottovoce study 1"
FILE_LIMIT = 256 * 1024
MOST_ANALYSES = 32
MOST_PARTIES = 32
PROGRAM_LIMIT = 128 * 1024
# A proposal carries both, in one record of at most 512 KiB.
_CANONICAL_LIMIT = 224 * 1024
_LIKE_A_HASH = re.compile(r"[0-9A-Fa-f]{4,64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,59}\.py")
_TRUST = {
    "prss": "half or more of the parties would have to act together to see anything",
    "ot": "all other parties would have to act together to see anything of one; nobody else is needed",
    "dealer": "{dealer} would have to act together with a party to see anything; alone it sees no data",
}


def _file_name(text: str) -> str:
    if not _FILE_NAME.fullmatch(text):
        raise ValueError("takes the name of a Python file beside the study, such as study.py, without folders")
    return text


def _title(text: str) -> str:
    # Commands take a study by its title or the begin of its hash: one must not look like the other.
    if _LIKE_A_HASH.fullmatch(text):
        raise ValueError("must not look like the begin of a hash, by which studies are named, too")
    return text


_SECURITY = {
    "semi-honest": "members follow the protocol, and may look at all that they get",
    "malicious": "members may do as they please, all but one together: what they change is noticed before a result is "
    "used, and the run ends; who it was is not found out, and a member may lie about its own rows",
}


def _security(text: str) -> str:
    if text not in _SECURITY:
        raise ValueError(f"{short(text)} is not available: this version offers 'semi-honest' and 'malicious'")
    return text


class Program(Strict):
    """A program of one's own, by name and hash.

    Attributes
    ----------
    file : str
        Beside the study file.
    sha256 : str
        Of the file's bytes.
    """

    file: Annotated[str, AfterValidator(_file_name)]
    sha256: Hex256


_Names = Annotated[tuple[Name, ...], Field(max_length=MOST_PARTIES)]


class Study(Strict):
    """What members approve; fields as in the file.

    Attributes
    ----------
    title, purpose : str
    consortium : str
    contributors, recipients : tuple of str
        Whose rows are used; who learns the results.
    preprocessing : {"prss", "dealer", "ot"}
    dealer : str or None
    security : str
        ``"semi-honest"``, or with ``"dealer"`` or ``"ot"`` ``"malicious"``.
    disclosure : str
        A preset of :class:`protocols.release.disclosure.Disclosure`.
    minimum_parties : int
        So many contributors must have at least one row.
    deadline : str
        UTC; no attempt starts after it.
    time_limit_seconds, resume_seconds, attempts : int
    dry_run : bool
    columns : tuple of Column
    analyses : tuple
        Of the classes in :mod:`parties.governance.catalogue`; or instead
    program : Program or None
    """

    format: FormatOne
    title: Annotated[ShortText, AfterValidator(_title)]
    purpose: Paragraph
    consortium: Name
    contributors: Annotated[_Names, Field(min_length=2)]
    recipients: Annotated[_Names, Field(min_length=1)]
    preprocessing: Literal["prss", "dealer", "ot"]
    dealer: Name | None = None
    security: Annotated[str, AfterValidator(_security)] = "semi-honest"
    disclosure: Literal["none", "datashield", "vantage6", "opensafely", "cms", "ons"]
    minimum_parties: Annotated[int, Field(ge=2)] = 2
    deadline: Time
    time_limit_seconds: Annotated[int, Field(ge=1, le=30 * 86_400)] = 3600
    resume_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    dry_run: bool = True
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=MOST_COLUMNS)]
    analyses: Annotated[tuple[AnyAnalysis, ...], Field(max_length=MOST_ANALYSES)] = ()
    program: Program | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for key, names in (("contributors", self.contributors), ("recipients", self.recipients)):
            if len(set(names)) < len(names):
                raise ValueError(f"{key} names a member twice")
        if (self.dealer is not None) != (self.preprocessing == "dealer"):
            raise ValueError("dealer names a member exactly when preprocessing is 'dealer'")
        if self.dealer in self.parties:
            raise ValueError(f"{self.dealer} cannot be the dealer and take part: a dealer sees no data and no result")
        if len(self.parties) > MOST_PARTIES:
            raise ValueError(f"more than {MOST_PARTIES} parties")
        check_preprocessing(self.preprocessing, len(self.parties))
        check_security(self.security, self.preprocessing)
        preset = disclosure_of(self)
        if preset.minimum_parties > len(self.contributors) >= self.minimum_parties:
            raise ValueError(
                f"disclosure control {self.disclosure!r} takes {preset.minimum_parties} contributors with rows, the "
                f"study has {len(self.contributors)}"
            )
        if self.minimum_parties > len(self.contributors):
            raise ValueError(f"minimum_parties is above the number of contributors, {len(self.contributors)}")
        if bool(self.analyses) == (self.program is not None):
            raise ValueError("a study has either analyses or a program")
        schema = schema_of(self.columns)
        labels = [one.name.casefold() for one in self.analyses]
        if len(set(labels)) < len(labels):
            raise ValueError("two analyses have the same name (capital letters do not count)")
        for analysis in self.analyses:
            analysis.check(schema)
            if self.security == "malicious" and not analysis.holds_against_cheaters:
                raise ValueError(
                    f"analysis {analysis.name} does not run with security 'malicious'; sums, means (with count = "
                    "'total'), proportions, histograms and contingency tables do, and so may a program"
                )
        if self.security == "malicious" and preset.dominance:
            raise ValueError(f"disclosure control {self.disclosure!r} does not run with security 'malicious'")
        if len(canonical(self.plain())) > _CANONICAL_LIMIT:
            raise ValueError(f"the study takes more than {_CANONICAL_LIMIT} bytes")
        return self

    # ---- who ----------------------------------------------------------------------------------------

    @property
    def parties(self) -> tuple[str, ...]:
        """The members that compute, by rank: contributors, then recipients that contribute nothing."""
        return self.contributors + tuple(one for one in self.recipients if one not in self.contributors)

    @property
    def members(self) -> tuple[str, ...]:
        """The members that must approve: the parties, and the dealer last."""
        return self.parties if self.dealer is None else (*self.parties, self.dealer)

    # ---- what ---------------------------------------------------------------------------------------

    @property
    def columns_by_name(self) -> Schema:
        """The columns by name."""
        return schema_of(self.columns)

    @cached_property
    def hash(self) -> str:
        """The SHA-256 that members approve, in hexadecimal."""
        return digest(DOMAIN, canonical(self.plain()))

    def plain(self) -> dict[str, Any]:
        """Return all fields as JSON's types; the hash is over these."""
        return self.model_dump(mode="json")

    def deadline_passed(self, now: datetime.datetime) -> bool:
        """Whether the deadline is over."""
        return now >= read_time(self.deadline)

    def check_members(self, consortium: Consortium) -> None:
        """Check that all members exist in the consortium, in the right roles.

        Raises
        ------
        StudyError
        """
        if self.consortium != consortium.name:
            raise StudyError(
                f"study {short(self.title)} is for the consortium {self.consortium}, here is {consortium.name}"
            )
        for name in self.members:
            try:
                member = consortium.member(name)
            except ConsortiumError as error:
                raise StudyError(f"study {short(self.title)}: {error}") from None
            wanted = "dealer" if name == self.dealer else "party"
            if member.role != wanted:
                raise StudyError(
                    f"study {short(self.title)}: {name} is a {member.role} in the consortium and cannot be a {wanted}"
                )

    def describe(self) -> str:
        """Return what whoever approves must know, as plain text."""
        return "\n".join(_description(self)) + "\n"


def parse_study(text: str | bytes, what: str = "study") -> Study:
    """Make a study of the text of its file.

    Raises
    ------
    StudyError
        In one line: which key, and what it takes.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return study_of(read_toml(data, limit=FILE_LIMIT, what=what, error=StudyError), what)


def study_of(value: object, what: str = "study") -> Study:
    """Make a study of JSON's types, as :meth:`Study.plain` gives them.

    Raises
    ------
    StudyError
    """
    return from_plain(Study, value, what, StudyError)


def read_study(path: Path) -> tuple[Study, str | None]:
    """Read a study file, and the program that it pins, which lies beside it.

    Raises
    ------
    StudyError
        Also if the program is not the one that was pinned.
    """
    study = parse_study(read_bounded(path, limit=FILE_LIMIT, what="study", error=StudyError), f"study {shown(path)}")
    if study.program is None:
        return study, None
    program = path.parent / study.program.file
    data = read_bounded(program, limit=PROGRAM_LIMIT, what="program", error=StudyError)
    return study, check_program(study, data)


def check_program(study: Study, program: bytes | str | None) -> str | None:
    """Return the text of a study's program after checking that it is the one that was pinned.

    Raises
    ------
    StudyError
        If it is another one, is missing, or holds characters that do not show: whoever approves a program
        reads it, and those let a text read as another (Boucher, Anderson, "Trojan Source", 2021).
    """
    if study.program is None:
        if program is not None:
            raise StudyError(f"study {short(study.title)} has no program, but came with one")
        return None
    if program is None:
        raise StudyError(f"study {short(study.title)} has a program, but came without it")
    file = study.program.file
    try:
        data = program.encode("utf-8") if isinstance(program, str) else program
        text = data.decode("utf-8")
    except UnicodeError:
        raise StudyError(f"program {file} is not UTF-8 text") from None
    if len(data) > PROGRAM_LIMIT:
        raise StudyError(f"program {file} is larger than {PROGRAM_LIMIT} bytes")
    found = hashlib.sha256(data).hexdigest()
    if found != study.program.sha256:
        raise StudyError(
            f"program {file} is not the one that the study pins: its sha256 is {found}, the study says "
            f"{study.program.sha256}"
        )
    for number, line in enumerate(text.split("\n"), 1):
        if not line.removesuffix("\r").replace("\t", "").isprintable():
            raise StudyError(f"program {file}: line {number} holds a character that does not show; remove it")
    try:
        size = len(canonical(text))
    except CanonicalError as error:
        raise StudyError(f"program {file}: {error}") from None
    if size > _CANONICAL_LIMIT:
        raise StudyError(f"program {file} takes more than {_CANONICAL_LIMIT} bytes as JSON")
    return text


def differences(a: Study, b: Study) -> list[str]:
    """Say what differs between two studies, a sentence for each difference; empty if they are alike."""
    found: list[str] = []
    _compare(a.plain(), b.plain(), "", found)
    return found


def _compare(a: Any, b: Any, place: str, found: list[str]) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            inner = f"{place}.{key}" if place else key
            if key not in a or key not in b:
                found.append(f"{inner} stands in the {'second' if key not in a else 'first'} only")
            else:
                _compare(a[key], b[key], inner, found)
    elif isinstance(a, list) and isinstance(b, list):
        for number, (one, other) in enumerate(zip(a, b, strict=False), 1):
            _compare(one, other, f"{place} {_called(one, other, number)}", found)
        if len(a) != len(b):
            found.append(f"{place} has {len(a)} entries in the first, {len(b)} in the second")
    elif canonical(a) != canonical(b):
        found.append(f"{place} is {short(a)} in the first, {short(b)} in the second")


def _called(one: Any, other: Any, number: int) -> str:
    if isinstance(one, dict) and isinstance(other, dict) and one.get("name") == other.get("name") is not None:
        return str(one["name"])
    return str(number)


# ---- for whoever approves -------------------------------------------------------------------------


def _description(study: Study) -> list[str]:
    disclosure = disclosure_of(study)
    others = [one for one in study.parties if one not in study.recipients]
    lines = [
        study.title,
        f"study {study.hash}",
        "",
        "Purpose",
        *_indented(study.purpose.split("\n")),
        "",
        "Who",
        f"  consortium: {study.consortium}",
        f"  contribute rows: {', '.join(study.contributors)}",
        f"  learn the results: {', '.join(study.recipients)}",
    ]
    if others:
        lines.append(f"  contribute, and do not learn the results: {', '.join(others)}")
    lines += ["", "What is computed" + (" (a program of its own)" if study.program else "")]
    if study.program is not None:
        lines += [
            f"  {study.program.file}, sha256 {study.program.sha256}",
            "  The program itself decides what is opened to whom: read it before you approve.",
            "  At each contributor it is given that contributor's checked rows, in a process without the node's keys",
            "  or files, but with a network: what it may connect to is for the firewall to say.",
        ]
    for analysis in study.analyses:
        lines.append(f"  {analysis.name}: {analysis.asks()}")
        revealed = analysis.reveals()
        lines.append(f"    {', '.join(study.recipients)} learn: {revealed.recipients}")
        if revealed.everybody:
            lines.append(f"    all parties learn: {revealed.everybody}")
        lines.append(f"    only with: {'; '.join(analysis.rules(study.columns_by_name, disclosure))}")
    lines += ["", "Columns", *_indented(column.describe() for column in study.columns)]
    lines += [
        "",
        "Protection",
        f"  security: {study.security}: {_SECURITY[study.security]}",
        f"  preprocessing: {study.preprocessing}: " + _TRUST[study.preprocessing].format(dealer=study.dealer),
        f"  disclosure control: {study.disclosure}, rows from at least {disclosure.minimum_parties} contributors; "
        + (
            "nothing makes the program apply it: see its text"
            if study.program
            else "all parties learn whether its rules hold, and no result is opened if not"
        ),
        "  dry run on made-up data first: " + ("yes" if study.dry_run else "no"),
        "",
        "Limits",
        f"  no attempt starts after {study.deadline}; at most {study.attempts} attempts of "
        f"{study.time_limit_seconds} s",
        f"  a member may be away for {study.resume_seconds} s during a run",
    ]
    return lines


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]
