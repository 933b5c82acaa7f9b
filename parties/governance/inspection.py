"""Looking at audit logs from outside: do they hold, what do they say.

Nothing here needs a key or a running node, so that an auditor can do it on a copy.
"""

from __future__ import annotations

import csv
import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from parties.governance.canonical import canonical
from parties.governance.checks import one_line, write_time
from parties.governance.entries import (
    GENESIS,
    WITNESS,
    Chain,
    Entry,
    Tail,
    genesis_certificate,
    lines,
    open_log,
    parse_line,
    read_entries,
)
from parties.governance.errors import AuditError
from parties.governance.files import reason, shown
from parties.governance.keys import key_id_of

if TYPE_CHECKING:
    from rich.table import Table

_MOST_FINDINGS = 50
_HASH = re.compile("[0-9a-f]{64}")


def verify(path: Path, certificate: bytes | None = None, witnesses: Sequence[Path] = ()) -> list[str]:
    """Check a log: every signature, the chain, and what other logs saw of it.

    Parameters
    ----------
    path : Path
    certificate : bytes, optional
        DER; the log must be of its key. Without it, the key that the log itself names is taken.
    witnesses : sequence of Path
        Logs of other members, which keep the heads of this log that they were told.

    Returns
    -------
    list of str
        What is wrong, a sentence each; empty if all is well.
    """
    found: list[str] = []
    signer = certificate
    hashes: dict[int, str] = {}
    chain, tail, wanted = Chain(), Tail(), _witnessed(witnesses, found)
    with open_log(path) as file:
        try:
            for number, line in lines(file, tail):
                entry, faults, signer = _examine(number, line, chain, signer)
                found += faults
                if entry is not None:
                    chain.step(entry)
                    if entry.number in wanted:
                        hashes[entry.number] = entry.hash
                else:  # go on, as if there had been an entry: the next one will not follow from it
                    chain.number, chain.hash = chain.number + 1, ""
                if len(found) >= _MOST_FINDINGS:
                    return [*found, "more is wrong after this"]
        except AuditError as error:
            return [*found, str(error)]
    if tail.torn:
        found.append(f"the last line is torn ({len(tail.torn)} bytes): the node repairs it when it starts")
    if chain.number < 0:
        return [*found, "the log is empty"]
    if signer is not None:
        found += _contradictions(wanted, hashes, key_id_of(signer))
    return found


def export(path: Path, out: Path, study: str | None = None, since: datetime.datetime | None = None) -> int:
    """Write entries to a new file: CSV if its name ends so, else JSON lines.

    Parameters
    ----------
    path, out : Path
    study : str, optional
        Only entries of the study whose hash begins so.
    since : datetime.datetime, optional
        Only entries from then on.

    Returns
    -------
    int
        How many entries were written.
    """
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise AuditError(f"{shown(out)} exists already and is not overwritten: name another file") from None
    except OSError as failure:
        raise AuditError(f"{shown(out)} cannot be written: {reason(failure)}") from None
    count = 0
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file) if out.suffix.lower() == ".csv" else None
            if table is not None:
                table.writerow(["number", "time", "event", "study", "fields", "previous", "signature"])
            for entry in select(read_entries(path), study, since):
                count += 1
                if table is None:
                    file.write(canonical(entry.plain()).decode("ascii") + "\n")
                else:
                    fields = canonical(entry.fields).decode("ascii")
                    table.writerow(
                        [entry.number, entry.time, entry.event, _study(entry), fields, entry.previous, entry.signature]
                    )
    except OSError as failure:
        raise AuditError(f"{shown(out)} cannot be written: {reason(failure)}") from None
    return count


def select(
    entries: Iterator[Entry], study: str | None = None, since: datetime.datetime | None = None
) -> Iterator[Entry]:
    """Give the entries of one study, or from a time on."""
    begin = "" if since is None else write_time(since)
    for entry in entries:
        if entry.time < begin:
            continue
        if study is not None and not _study(entry).startswith(study):
            continue
        yield entry


def show(entries: Iterator[Entry]) -> Table:
    """Return entries as a table for a terminal; text from outside cannot steer the terminal."""
    from rich.text import Text

    from parties.display import make_table

    table = make_table("no.", "time", "event", "details")
    for column in table.columns[:3]:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify, column.overflow = "left", "fold"
    for entry in entries:
        details = ", ".join(f"{key}={_shown(value)}" for key, value in entry.fields.items() if value is not None)
        table.add_row(str(entry.number), entry.time, entry.event, Text(one_line(details, 400)))
    return table


def _examine(
    number: int, line: bytes, chain: Chain, signer: bytes | None
) -> tuple[Entry | None, list[str], bytes | None]:
    """Return an entry, what is wrong with it, and whose signatures are expected from now on."""
    try:
        entry = parse_line(line)
    except AuditError as error:
        return None, [f"line {number}: {error}"], signer
    faults = [f"line {number}: {fault}"] if (fault := chain.fault(entry)) else []
    if number == 1:
        try:
            named = genesis_certificate(entry)
        except AuditError as error:
            return entry, [*faults, f"line 1: {error}"], signer
        if signer is not None and key_id_of(named) != key_id_of(signer):
            faults.append("line 1: it is the log of another key")
        signer = signer or named
    if signer is None or not entry.is_signed_by(signer):
        faults.append(f"line {number}: the signature does not fit")
    return entry, faults, signer


class _Seen(NamedTuple):
    """What another log keeps of an entry: who saw it, in the log of which key, and its hash."""

    who: str
    key_id: str
    hash: str


def _witnessed(witnesses: Sequence[Path], found: list[str]) -> dict[int, list[_Seen]]:
    """Collect what other logs saw, by number of entry; a log that is not in order is no witness."""
    seen: dict[int, list[_Seen]] = {}
    for path in witnesses:
        faults = verify(path)
        if faults:
            found.append(f"{shown(path)} is no witness: {faults[0]}")
            continue
        who = shown(path)
        for entry in read_entries(path):
            if entry.event == GENESIS:
                who = one_line(str(entry.fields.get("name")))
            if entry.event == WITNESS:
                number, key, told = (entry.fields.get(name) for name in ("number", "key", "hash"))
                if isinstance(number, int) and isinstance(key, str) and isinstance(told, str):
                    seen.setdefault(number, []).append(_Seen(who, key, told))
    return seen


def _contradictions(seen: Mapping[int, list[_Seen]], hashes: Mapping[int, str], key_id: str) -> list[str]:
    found = []
    for number in sorted(seen):
        for who, key, told in seen[number]:
            if key != key_id or hashes.get(number) == told:
                continue
            if number in hashes:
                found.append(f"entry {number} is not the one that {who} saw: the log was written anew")
            else:
                found.append(f"{who} saw entry {number}, which is not there: the end of the log was cut off")
    return found


def _study(entry: Entry) -> str:
    """Return the hash of the study that an entry is about, and nothing else: a spreadsheet will read it."""
    study = entry.fields.get("study")
    return study if isinstance(study, str) and _HASH.fullmatch(study) else ""


def _shown(value: Any) -> str:
    if isinstance(value, str) and value.startswith("-----BEGIN CERTIFICATE"):
        return "(in the log)"
    if isinstance(value, str):
        return value[:16] + "..." if len(value) >= 64 and value.isalnum() else one_line(value, 120)
    return one_line(canonical(value).decode("ascii"), 120)
