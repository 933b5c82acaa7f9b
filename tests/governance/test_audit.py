"""The audit log: whatever is altered, moved, cut or forged shows, at the line where it is."""

import csv
import datetime
import errno
import io
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parties.governance.audit import AuditLog, code_version, export, find_log, read_entries, select, show, verify
from parties.governance.canonical import canonical, digest
from parties.governance.entries import DOMAIN, Entry
from parties.governance.errors import AuditError
from parties.governance.keys import NodeKey, certificate_pem, generate
from tests.governance.world import NOW

KEY, OTHER = generate("north"), generate("city")
STUDY_HASH = "12" * 32


def clock() -> datetime.datetime:
    return NOW


def write(path: Path, key: NodeKey = KEY, entries: int = 5) -> Path:
    with AuditLog(path, key, clock, name="north") as log:
        for number in range(entries):
            log.append("opened", study=STUDY_HASH, step=f"step {number}", shape=[3, number], to=["north", "city"])
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "audit.jsonl")


# ---- good logs ------------------------------------------------------------------------------------


def test_a_log_holds_what_was_written(path: Path) -> None:
    assert verify(path) == []
    assert verify(path, KEY.certificate) == []
    entries = list(read_entries(path))
    assert [entry.number for entry in entries] == list(range(6))
    assert entries[0].event == "genesis"
    assert entries[0].fields["certificate"] == certificate_pem(KEY.certificate)
    assert entries[0].fields["name"] == "north"
    assert {**entries[0].fields, **code_version()} == entries[0].fields
    assert entries[3].fields == {"study": STUDY_HASH, "step": "step 2", "shape": [3, 2], "to": ["north", "city"]}
    assert {entry.time for entry in entries} == {"2030-06-01T12:00:00Z"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_chain_is_what_it_says(path: Path) -> None:
    """Read by hand: each line is canonical, and names the hash of the line before."""
    previous = "0" * 64
    for number, line in enumerate(path.read_bytes().splitlines()):
        value = json.loads(line)
        assert canonical(value) == line
        assert (value["number"], value["previous"]) == (number, previous)
        previous = digest("sottovoce audit 1", line)


def test_a_log_goes_on_where_it_ended(path: Path) -> None:
    with AuditLog(path, KEY, clock) as log:
        before = log.head
        assert before[0] == 5
        entry = log.append("stopped")
        assert log.head == (6, entry.hash)
        assert entry.previous == before[1]
        assert log.path == path
    assert verify(path) == []
    assert len(list(read_entries(path))) == 7
    assert [e.event for e in read_entries(path)].count("genesis") == 1


def test_a_renewed_certificate_goes_on_in_the_same_log(path: Path) -> None:
    renewed = KEY.renew()
    with AuditLog(path, renewed, clock) as log:
        log.append("started")
    assert verify(path, renewed.certificate) == []


def test_fields_may_be_named_as_parameters_are(path: Path) -> None:
    with AuditLog(path, KEY, clock) as log:
        entry = log.append("odd", event="x", self="y", clock=1, name="z")
    assert entry.fields == {"event": "x", "self": "y", "clock": 1, "name": "z"}
    assert verify(path) == []


def test_halves_of_characters_do_not_stop_the_log(path: Path) -> None:
    with AuditLog(path, KEY, clock) as log:
        entry = log.append("failure", file="a\udcffb", nested=[{"\udc80": ("x", 1)}])
    assert entry.fields == {"file": "a?b", "nested": [{"?": ["x", 1]}]}
    assert verify(path) == []


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"x": b"bytes"}, "type bytes"),
        ({"x": float("nan")}, "NaN"),
        ({"x": object()}, "type object"),
        ({"x": 2**64}, "64 bits"),
        ({"x": "y" * 65_530}, "more than 65536 bytes"),
        ({"x": "\u00e4" * 11_000}, "more than 65536 bytes"),
    ],
)
def test_what_is_no_entry_is_refused_and_leaves_no_trace(path: Path, fields: dict[str, Any], why: str) -> None:
    before = path.read_bytes()
    with AuditLog(path, KEY, clock) as log:
        with pytest.raises(AuditError, match=f"audit entry tried: .*{why}"):
            log.append("tried", **fields)
        assert path.read_bytes() == before
        log.append("stopped")
    assert verify(path) == []


@pytest.mark.parametrize("event", ["", "a" * 41, "\x1b", "a\nb", "ä", "a,b"])
def test_events_have_names(path: Path, event: str) -> None:
    with AuditLog(path, KEY, clock) as log, pytest.raises(AuditError):
        log.append(event)
    assert verify(path) == []


def test_the_largest_entry_is_read_again(path: Path) -> None:
    with AuditLog(path, KEY, clock) as log:
        log.append("opened", x="y" * (64 * 1024 - len('{"x":""}')))
        log.append("stopped")
    assert verify(path) == []
    AuditLog(path, KEY, clock).close()


# ---- altered logs ---------------------------------------------------------------------------------


def refused_at(path: Path) -> str:
    """What opening says; the file stays as it is."""
    before = path.read_bytes()
    with pytest.raises(AuditError) as error:
        AuditLog(path, KEY, clock)
    assert path.read_bytes() == before
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("line", range(6))
@pytest.mark.parametrize(
    "alter",
    [
        lambda v: {**v, "time": "2030-06-01T12:00:01Z"},
        lambda v: {**v, "event": "nothing"},
        lambda v: {**v, "fields": {**v["fields"], "more": 1}},
        lambda v: {**v, "number": v["number"] + 1},
        lambda v: {**v, "previous": "ab" * 32},
        lambda v: {**v, "signature": "ab" * 64},
    ],
)
def test_an_altered_line_shows_there(path: Path, line: int, alter: Callable[[Any], Any]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = canonical(alter(json.loads(lines[line]))) + b"\n"
    path.write_bytes(b"".join(lines))
    found = verify(path)
    assert found[0].startswith(f"line {line + 1}: ")
    assert re.search(rf"line ({line + 1}|{line + 2}): ", refused_at(path))


@pytest.mark.parametrize("line", range(6))
def test_a_line_signed_anew_by_another_key_shows_there(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = forged(lines[line], OTHER)
    path.write_bytes(b"".join(lines))
    found = verify(path)
    assert f"line {line + 1}: the signature does not fit" in found
    refused_at(path)


@pytest.mark.parametrize("line", range(5))
def test_a_line_that_its_owner_wrote_anew_breaks_the_chain(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = forged(lines[line], KEY)
    path.write_bytes(b"".join(lines))
    assert verify(path) == [f"line {line + 2}: does not follow from the line before"]
    assert f"line {line + 2}: does not follow" in refused_at(path)


def forged(line: bytes, key: NodeKey) -> bytes:
    value = json.loads(line)
    value["time"] = "2030-06-01T12:00:59Z"
    value.pop("signature")
    return canonical({**value, "signature": key.sign(DOMAIN, canonical(value)).hex()}) + b"\n"


@pytest.mark.parametrize("line", range(5))
def test_a_missing_line_shows(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[line]
    path.write_bytes(b"".join(lines))
    assert verify(path)[0].startswith(f"line {line + 1}: ")
    assert f"line {line + 1}: " in refused_at(path)


@pytest.mark.parametrize("line", range(5))
def test_exchanged_lines_show(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line], lines[line + 1] = lines[line + 1], lines[line]
    path.write_bytes(b"".join(lines))
    assert verify(path)[0].startswith(f"line {line + 1}: has number {line + 1}, here stands entry {line}")
    assert f"line {line + 1}: has number" in refused_at(path)


@pytest.mark.parametrize("line", range(6))
def test_a_doubled_line_shows(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines.insert(line, lines[line])
    path.write_bytes(b"".join(lines))
    assert verify(path)[0].startswith(f"line {line + 2}: has number {line}, here stands")
    assert f"line {line + 2}: has number" in refused_at(path)


@pytest.mark.parametrize("junk", [b"\n", b"{}\n", b"nonsense\n", b"\xff\n", b"[" * 1000 + b"\n", b" \n"])
@pytest.mark.parametrize("line", [0, 3, 6])
def test_a_line_that_is_no_entry_shows(path: Path, line: int, junk: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines.insert(line, junk)
    path.write_bytes(b"".join(lines))
    assert verify(path)[0].startswith(f"line {line + 1}: is not an entry")
    assert f"line {line + 1}: is not an entry" in refused_at(path)
    with pytest.raises(AuditError, match=f"line {line + 1}: is not an entry"):
        list(read_entries(path))


def test_a_line_without_end_is_refused_without_reading_it_all(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 1_000_000)
    assert verify(path) == ["line 7: is not an entry"]
    assert "line 7: is not an entry" in refused_at(path)


def test_many_faults_are_not_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"x\n" * 1000)
    found = verify(path)
    assert len(found) < 60
    assert found[-1] == "more is wrong after this"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_altered_byte_shows(path: Path, data: st.DataObject) -> None:
    original = path.read_bytes()
    altered = bytearray(original)
    place = data.draw(st.integers(0, len(altered) - 1))
    altered[place] ^= data.draw(st.integers(1, 255))
    other = path.with_name("other.jsonl")
    other.write_bytes(altered)
    assert verify(other)
    last = original.rindex(b"\n", 0, -1)
    if place <= last or (altered[-1:] == b"\n" and b"\0" not in altered):
        with pytest.raises(AuditError):
            AuditLog(other, KEY, clock)


def test_a_log_of_another_key_is_refused(path: Path) -> None:
    with pytest.raises(AuditError, match="line 1: it is the log of another key; put it aside"):
        AuditLog(path, OTHER, clock)
    assert verify(path, OTHER.certificate)[0] == "line 1: it is the log of another key"


def test_a_log_that_names_another_certificate_is_forged(path: Path) -> None:
    """Whoever has another key can write a whole log, but not one of the pinned certificate."""
    write(path.with_name("whole.jsonl"), OTHER)
    whole = path.with_name("whole.jsonl")
    assert verify(whole) == []
    assert verify(whole, KEY.certificate)[0] == "line 1: it is the log of another key"


@pytest.mark.parametrize("certificate", [None, 5, "", "nonsense"])
def test_a_log_begins_with_a_certificate(path: Path, certificate: object) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    value = json.loads(lines[0])
    value["fields"]["certificate"] = certificate
    value.pop("signature")
    path.write_bytes(canonical({**value, "signature": KEY.sign(DOMAIN, canonical(value)).hex()}) + b"\n")
    assert verify(path)[0].startswith("line 1: ")
    assert "line 1: " in refused_at(path)


# ---- crashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 2, 50, 200, -1])
def test_a_torn_end_is_repaired_and_noted(path: Path, cut: int) -> None:
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    torn = whole[:-1] if cut == -1 else whole[: last + cut]
    path.write_bytes(torn)
    assert verify(path) == [f"the last line is torn ({len(torn) - last} bytes): the node repairs it when it starts"]
    assert len(list(read_entries(path))) == 5
    with AuditLog(path, KEY, clock) as log:
        assert log.head[0] == 5
        log.append("started")
    assert verify(path) == []
    repaired = list(read_entries(path))[5]
    assert (repaired.event, repaired.fields["removed_bytes"]) == ("repaired", len(torn) - last)


@pytest.mark.parametrize("tail", [b"\0" * 100, b"\0" * 4096 + b'ab"}\n', b"{\0"])
def test_blocks_of_zeros_are_a_torn_end(path: Path, tail: bytes) -> None:
    with path.open("ab") as file:
        file.write(tail)
    AuditLog(path, KEY, clock).close()
    assert verify(path) == []
    assert list(read_entries(path))[-1].fields["removed_bytes"] == len(tail)


def test_zeros_in_the_middle_are_no_torn_end(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"\0" * 20 + b"\n", *lines[3:]]))
    assert "line 4: is not an entry" in refused_at(path)
    assert verify(path) == ["line 4: is not an entry"]


@pytest.mark.parametrize("content", [b"", b'{"event":"gen', b"\0" * 10])
def test_a_log_that_a_crash_left_without_an_entry_begins(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    path.chmod(0o600)
    assert verify(path)[-1] == "the log is empty"
    with AuditLog(path, KEY, clock) as log:
        log.append("started")
    assert verify(path) == []
    assert next(read_entries(path)).event == "genesis"


@pytest.mark.parametrize("written", [0, 10, 200])
def test_a_full_disk_leaves_the_log_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    log = AuditLog(path, KEY, clock)
    before, head = path.read_bytes(), log.head
    real = os.write

    left = [written]

    def full(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        size, left[0] = left[0], 0
        return real(handle, data[:size])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(AuditError, match="cannot be written: no space left on device"):
            log.append("opened", study=STUDY_HASH)
    assert path.read_bytes() == before
    assert log.head == head
    log.append("started")  # there is room again
    log.close()
    assert verify(path) == []


def test_a_disk_that_fails_altogether_closes_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(path, KEY, clock)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(AuditError, match="input/output error"):
            log.append("opened")
    with pytest.raises(AuditError, match="is closed"):
        log.append("opened")
    log.close()
    AuditLog(path, KEY, clock).close()
    assert verify(path) == []


def test_every_entry_is_on_the_disk_when_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    with AuditLog(path, KEY, clock) as log:

        def note(handle: int) -> None:
            synced.append(os.fstat(handle).st_size)
            real(handle)

        monkeypatch.setattr(os, "fsync", note)
        log.append("opened")
        assert synced == [path.stat().st_size]


KILLED = """
import datetime, os, sys
from pathlib import Path
from parties.governance.audit import AuditLog
from parties.governance.keys import load
key = load(Path(sys.argv[1], "key.pem"), Path(sys.argv[1], "certificate.pem"))
log = AuditLog(Path(sys.argv[1], "audit.jsonl"), key, lambda: datetime.datetime.now(datetime.UTC), "north")
print(log.head[0], flush=True)
while True:
    print(log.append("opened", step="x" * 500).hash, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_had_confirmed(tmp_path: Path) -> None:
    KEY.save(tmp_path)
    confirmed: list[str] = []
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            confirmed += [child.stdout.readline().strip() for _ in range(30)]
            child.kill()
    AuditLog(tmp_path / "audit.jsonl", KEY, clock).close()
    assert verify(tmp_path / "audit.jsonl") == []
    assert set(confirmed) <= {entry.hash for entry in read_entries(tmp_path / "audit.jsonl")}


def test_a_disk_that_fails_at_the_start_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with path.open("ab") as file:
        file.write(b"torn")
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(AuditError, match="cannot be opened: input/output error"):
            AuditLog(path, KEY, clock)
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", broken)
        with pytest.raises(AuditError, match="cannot be locked: input/output error"):
            AuditLog(path, KEY, clock)
    AuditLog(path, KEY, clock).close()
    assert verify(path) == []


def test_one_process_writes_at_a_time(path: Path) -> None:
    with AuditLog(path, KEY, clock), pytest.raises(AuditError, match="in use: another node runs"):
        AuditLog(path, KEY, clock)
    AuditLog(path, KEY, clock).close()


def test_a_closed_log_takes_nothing(path: Path) -> None:
    log = AuditLog(path, KEY, clock)
    log.close()
    log.close()
    with pytest.raises(AuditError, match="is closed"):
        log.append("stopped")
    assert "6 entries" in repr(log)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_log_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(AuditError, match="chmod 600"):
        AuditLog(path, KEY, clock)


def test_what_is_no_file_is_refused(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    with pytest.raises(AuditError, match="cannot be opened"):
        AuditLog(link, KEY, clock)
    with pytest.raises(AuditError, match="cannot be opened"):
        AuditLog(tmp_path / "none" / "audit.jsonl", KEY, clock)
    with pytest.raises(AuditError, match="cannot be read: no such file"):
        verify(tmp_path / "none.jsonl")
    with pytest.raises(AuditError, match="not a regular file"):
        verify(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AuditError, match="not a regular file"):
        verify(tmp_path / "pipe")


# ---- witnesses ------------------------------------------------------------------------------------


@pytest.fixture
def seen(tmp_path: Path, path: Path) -> tuple[Path, Path]:
    """North's log, and city's, which saw entries 3 and 5 of it."""
    city = tmp_path / "city.jsonl"
    entries = list(read_entries(path))
    with AuditLog(city, OTHER, clock, name="city") as log:
        for number in (3, 5):
            log.witness(
                member="north", key_id=KEY.key_id, number=number, entry_hash=entries[number].hash, study=STUDY_HASH
            )
        log.witness(member="south", key_id="ab" * 32, number=90, entry_hash="cd" * 32)
    return path, city


def test_a_log_that_others_saw_whole_is_good(seen: tuple[Path, Path]) -> None:
    path, city = seen
    assert verify(path, witnesses=[city]) == []
    assert verify(path, KEY.certificate, [city, city]) == []


def test_a_cut_end_shows(seen: tuple[Path, Path]) -> None:
    path, city = seen
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))
    assert verify(path) == []  # alone, nobody can tell
    assert verify(path, witnesses=[city]) == ["city saw entry 5, which is not there: the end of the log was cut off"]
    path.write_bytes(b"".join(lines[:2]))
    assert len(verify(path, witnesses=[city])) == 2


def test_a_log_written_anew_by_its_owner_shows(seen: tuple[Path, Path]) -> None:
    path, city = seen
    path.unlink()
    with AuditLog(path, KEY, clock, name="north") as log:
        for number in range(9):
            log.append("opened", step=f"nothing {number}")
    assert verify(path) == []
    assert verify(path, witnesses=[city]) == [
        "entry 3 is not the one that city saw: the log was written anew",
        "entry 5 is not the one that city saw: the log was written anew",
    ]


def test_a_witness_that_was_altered_does_not_count(seen: tuple[Path, Path]) -> None:
    path, city = seen
    city.write_bytes(city.read_bytes().replace(b'"number":5', b'"number":4'))
    found = verify(path, witnesses=[city])
    assert len(found) == 1
    assert "city.jsonl is no witness: line 3: " in found[0]


def test_a_log_may_be_its_own_witness(path: Path) -> None:
    """What it says of others is of no use for itself."""
    assert verify(path, witnesses=[path]) == []


# ---- reading --------------------------------------------------------------------------------------


def test_entries_are_chosen_by_study_and_time(path: Path) -> None:
    entries = list(read_entries(path))
    assert len(list(select(iter(entries), STUDY_HASH[:8]))) == 5
    assert list(select(iter(entries), "ff")) == []
    assert len(list(select(iter(entries), since=NOW))) == 6
    assert list(select(iter(entries), since=NOW + datetime.timedelta(seconds=1))) == []


def test_export_as_json_lines_is_the_log(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert export(path, out) == 6
    assert out.read_bytes() == path.read_bytes()
    assert verify(out) == []
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(AuditError, match="exists already"):
        export(path, out)


def test_export_as_csv_is_a_table(path: Path, tmp_path: Path) -> None:
    with AuditLog(path, KEY, clock) as log:
        log.append("failure", study="=cmd()", text='a,"b"\r\n\x1b[2J', more="\u202e")
    out = tmp_path / "out.csv"
    assert export(path, out, study=STUDY_HASH) == 5
    rows = list(csv.DictReader(io.StringIO(out.read_bytes().decode())))
    assert [row["number"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert json.loads(rows[0]["fields"])["step"] == "step 0"
    whole = tmp_path / "whole.csv"
    export(path, whole)
    text = whole.read_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    last = list(csv.DictReader(io.StringIO(whole.read_bytes().decode())))[-1]
    assert json.loads(last["fields"])["text"] == 'a,"b"\r\n\x1b[2J'
    for row in csv.reader(io.StringIO(whole.read_bytes().decode())):
        for cell in row:  # a spreadsheet takes what begins so for a formula
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_export_of_an_altered_log_says_so(path: Path, tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"step 2", b"step 9"))
    with pytest.raises(AuditError, match="line 5: does not follow"):
        export(path, tmp_path / "out.jsonl")


def test_a_table_cannot_steer_the_terminal(path: Path) -> None:
    from rich.console import Console

    with AuditLog(path, KEY, clock) as log:
        log.append("failure", text="[bold red]x[/] \x1b[2J \u202e", list=["\x07"], hash="ab" * 32, nothing=None)
    console = Console(width=200, record=True, file=open(os.devnull, "w"))
    with console.file:
        console.print(show(read_entries(path)))
        text = console.export_text()
    assert "[bold red]x[/] \\x1b[2J \\u202e" in text
    assert "abababababababab..." in text
    assert "nothing" not in text
    assert text.replace("\n", "").isprintable()


def test_a_log_is_found_in_a_nodes_directory(path: Path, tmp_path: Path) -> None:
    assert find_log(path) == path
    assert find_log(tmp_path) == path
    (tmp_path / "node" / "state").mkdir(parents=True)
    with pytest.raises(AuditError, match="holds no audit log"):
        find_log(tmp_path / "node")
    path.rename(tmp_path / "node" / "state" / "audit.jsonl")
    assert find_log(tmp_path / "node") == tmp_path / "node" / "state" / "audit.jsonl"


def test_a_long_log_opens_quickly(tmp_path: Path) -> None:
    """The node's start does not wait for all signatures: the last one and the chain say as much."""
    path = write(tmp_path / "audit.jsonl", entries=0)
    previous, number = next(read_entries(path)).hash, 1
    with path.open("ab") as file:
        for number in range(1, 3001):
            content = {
                "number": number,
                "time": "2030-06-01T12:00:00Z",
                "event": "x",
                "previous": previous,
                "fields": {},
            }
            signature = KEY.sign(DOMAIN, canonical(content)).hex() if number == 3000 else "00" * 64
            line = canonical({**content, "signature": signature})
            file.write(line + b"\n")
            previous = digest(DOMAIN, line)
    begin = time.process_time()
    AuditLog(path, KEY, clock).close()
    assert time.process_time() - begin < 3.0
    assert len(verify(path)) == 51  # verify looks at each


def test_code_is_named_by_version_and_hash() -> None:
    version = code_version()
    assert set(version) == {"version", "sources", "kernels"}
    assert re.fullmatch("[0-9a-f]{64}", version["sources"])
    assert code_version() == version


def test_an_entry_is_a_value(path: Path) -> None:
    one = next(read_entries(path))
    assert one == Entry(one.number, one.time, one.event, one.fields, one.previous, one.signature, one.hash)
    assert one.is_signed_by(KEY.certificate)
    assert not one.is_signed_by(OTHER.certificate)
