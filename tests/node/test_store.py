"""What is on disk is whole, private, and of one node alone; also after a crash and on a full disk."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parties.node.store import RESERVE_BYTES, Store, StoreError, running_pid

HASH = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state")
    yield made
    made.close()


def test_a_study_is_read_back_as_it_was_added(store: Store) -> None:
    store.add(HASH, {"title": "x"}, "print()\n")
    store.append(HASH, {"kind": "proposal"})
    store.append(HASH, {"kind": "approval"})
    loaded = store.load(HASH)
    assert loaded is not None
    assert (loaded.study, loaded.program) == ({"title": "x"}, "print()\n")
    assert [one["kind"] for one in loaded.records] == ["proposal", "approval"]
    assert list(store.hashes()) == [HASH]
    store.add(HASH, {"title": "y"}, None)
    again = store.load(HASH)
    assert again is not None
    assert again.study == {"title": "x"}


def test_everything_is_private(store: Store) -> None:
    store.add(HASH, {}, "x")
    store.append(HASH, {})
    store.note(HASH, {})
    store.save_result(HASH, b"{}")
    store.save_queue([(HASH, True)])
    for path in store.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    with pytest.raises(StoreError, match=r"mode 755\): chmod 700"):
        Store(tmp_path / "state")


def test_one_process_at_a_time(store: Store) -> None:
    with pytest.raises(StoreError, match="another node runs"):
        Store(store.directory)
    assert running_pid(store.directory) == os.getpid()
    store.close()
    assert running_pid(store.directory) is None
    Store(store.directory).close()


def test_whoever_looks_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    Store(tmp_path / "state").close()
    program = (
        "import sys; from pathlib import Path; from parties.node.store import running_pid\n"
        "print('ready', flush=True)\n"
        "while True: running_pid(Path(sys.argv[1]))"
    )
    looking = subprocess.Popen([sys.executable, "-c", program, tmp_path / "state"], stdout=subprocess.PIPE)
    with looking:
        try:
            assert looking.stdout is not None
            looking.stdout.readline()
            for _ in range(50):
                Store(tmp_path / "state").close()
        finally:
            looking.kill()


@pytest.mark.parametrize("torn", [b"{", b'{"kind":"approval"}', b"\0\0\0"])
def test_a_torn_last_line_is_dropped(store: Store, torn: bytes) -> None:
    store.add(HASH, {}, None)
    store.append(HASH, {"n": 1})
    path = store.directory / "studies" / HASH / "records.jsonl"
    with open(path, "ab") as file:
        file.write(torn)
    loaded = store.load(HASH)
    assert loaded is not None
    assert list(loaded.records) == [{"n": 1}]
    with open(path, "ab") as file:
        file.write(torn)
    store.append(HASH, {"n": 2})  # without reading it first
    loaded = store.load(HASH)
    assert loaded is not None
    assert list(loaded.records) == [{"n": 1}, {"n": 2}]


def test_a_damaged_line_is_told(store: Store) -> None:
    store.add(HASH, {}, None)
    store.append(HASH, {"n": 1})
    store.append(HASH, {"n": 2})
    path = store.directory / "studies" / HASH / "records.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"n":1}', b'{"n":'))
    with pytest.raises(StoreError, match=r"records.jsonl, line 1, is damaged"):
        store.load(HASH)


def test_a_study_that_was_not_added_in_full_is_none(store: Store) -> None:
    (store.directory / "studies" / HASH).mkdir()
    assert store.load(HASH) is None


def test_a_result_is_written_once(store: Store) -> None:
    store.add(HASH, {}, None)
    assert store.result(HASH) is None
    assert store.save_result(HASH, b"first")
    assert not store.save_result(HASH, b"second")
    assert store.result(HASH) == b"first"
    assert [path.name for path in (store.directory / "studies" / HASH).iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["../" * 22 + "etc", "x" * 64, "AB" * 32, "ab", "", "ab" * 31 + "a/"])
def test_names_never_lead_out_of_the_directory(store: Store, name: str) -> None:
    for work in (lambda: store.add(name, {}, None), lambda: store.append(name, {}), lambda: store.result(name)):
        with pytest.raises(StoreError, match="64 hexadecimal digits"):
            work()


class FullDisk:
    """Takes a few bytes and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, handle: int, data: Any) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(handle, bytes(data)[: self.room])
        self.room -= written
        return written


def test_on_a_full_disk_nothing_half_written_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(HASH, {}, None)
    store.append(HASH, {"n": 1})
    with monkeypatch.context() as patch:
        FullDisk(patch, 5)
        with pytest.raises(StoreError, match=r"the disk is full: .* nothing was announced"):
            store.append(HASH, {"n": 2})
    assert (store.directory / "studies" / HASH / "records.jsonl").read_bytes() == b'{"n":1}\n'
    store.append(HASH, {"n": 3})
    loaded = store.load(HASH)
    assert loaded is not None
    assert list(loaded.records) == [{"n": 1}, {"n": 3}]


def test_what_could_not_even_be_cut_off_is_cut_off_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(HASH, {}, None)
    store.append(HASH, {"n": 1})

    def refuse(handle: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        FullDisk(patch, 5)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(StoreError, match="disk is full"):
            store.append(HASH, {"n": 2})
    store.append(HASH, {"n": 3})
    loaded = store.load(HASH)
    assert loaded is not None
    assert list(loaded.records) == [{"n": 1}, {"n": 3}]


def test_with_little_room_no_study_is_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda: RESERVE_BYTES - 1)
    with pytest.raises(StoreError, match="nearly full"):
        store.add(HASH, {}, None)


def test_the_queue_survives(store: Store) -> None:
    assert store.load_queue() == []
    store.save_queue([(HASH, True), ("cd" * 32, False)])
    assert store.load_queue() == [(HASH, True), ("cd" * 32, False)]


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.add(HASH, {"title": "x"}, None)
    assert store.save_result(HASH, b"{}")
    store.close()
    directory = tmp_path / "state" / "studies" / HASH
    left = directory / ".result.json.0123456789ab"
    os.link(directory / "result.json", left)  # it went down between link and unlink
    Store(tmp_path / "state").close()
    assert not left.exists()
    assert (directory / "result.json").exists()
