"""What goes wrong in a server room: each time a message on both sides says who, what and what to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parties.governance import cards, keys
from parties.governance.consortium import Consortium as Members
from tests.consortium.conftest import Attacked
from tests.consortium.nodes import Consortium, Node, RefusedError, eventually, knows
from tests.consortium.studies import COUNT, LONG, MEAN, Draft
from tests.consortium.trials import finish, propose, results


def trouble(at: Node, peer: str) -> str:
    """What a node says of its link to another."""
    try:
        return next((str(one["trouble"]) for one in at.ask("/status")["peers"] if one["name"] == peer), "")
    except OSError:  # it is being started
        return ""


@pytest.fixture
def south(attacked: Attacked) -> Iterator[Node]:
    """A node that is stopped for a test; afterwards it, and the consortium files of all, are as before."""
    node = attacked.consortium["south"]
    node.stop()
    kept = {path: path.read_bytes() for path in node.directory.iterdir() if path.is_file()}
    files = [(other, (other.directory / "consortium.toml").read_bytes()) for other in attacked.consortium]
    yield node
    node.stop()
    for path, content in kept.items():
        path.write_bytes(content)
    (node.directory / "key.pem").chmod(0o600)
    node.variables = {}
    for other, content in files:
        take_over(other, content)
    node.start()
    attacked.wait()


def take_over(node: Node, content: bytes | None = None) -> None:
    """Have a node use its consortium file as it is now, or another one."""
    file = node.directory / "consortium.toml"
    if content is not None:
        if file.read_bytes() == content:
            return
        file.write_bytes(content)
    if node.process is not None:
        os.kill(node.pid, signal.SIGHUP)


# Between nodes


def test_renewed_certificate_is_taken_over_without_a_restart_of_others(south: Node, attacked: Attacked) -> None:
    """All take the new card over, and read their files again: links come back, and a study runs."""
    consortium = attacked.consortium
    south("keygen", "--renew", "--directory", south.directory)
    for node in consortium:
        node("consortium", "renew", node.directory / "consortium.toml", south.directory / "card.toml")
        take_over(node)
    south.start()
    attacked.wait()
    study = propose(consortium, "after a renewal", "north", [MEAN])
    finish(consortium, study, "south")


def test_another_copy_of_the_consortium_file_is_named_on_both_sides(south: Node, attacked: Attacked) -> None:
    north, file = attacked.consortium["north"], south.directory / "consortium.toml"
    renamed = cards.make_card(
        keys.load(north.directory / "key.pem", north.directory / "certificate.pem"),
        name="north",
        organisation="Another hospital",
        address=f"127.0.0.1:{north.port}",
    )
    Members.load(file).renew(renamed).save(file)
    south.start()
    for one, other in ((north, "south"), (south, "city")):

        def said(one: Node = one, other: str = other) -> bool:
            return "consortium compare" in trouble(one, other)

        eventually(said, f"{one.name} says what is wrong with {other}'s file")
    done = north.attempt("consortium", "compare", north.directory / "consortium.toml", file)
    assert done.returncode == 1
    assert "north: organisation is" in done.stdout


def test_revoked_member_is_not_let_in(south: Node, attacked: Attacked) -> None:
    north = attacked.consortium["north"]
    for node in (north, attacked.consortium["city"]):
        node("consortium", "revoke", node.directory / "consortium.toml", "south", "--reason", "its key was copied")
        take_over(node)
    eventually(lambda: "south" not in [one["name"] for one in north.ask("/status")["peers"]], "south is no peer")
    south.start()
    eventually(lambda: "not accept our certificate" in trouble(south, "north"), "south is told")
    assert "unknown there, or revoked" in trouble(south, "north")


def test_another_version_of_the_software_is_named(south: Node, attacked: Attacked, tmp_path: Path) -> None:
    """Links come up, so that it can be seen; a study ends with the versions named."""
    about = tmp_path / "sottovoce-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sottovoce\nVersion: 9.9\n", "utf-8")
    south.variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{south.environment['PYTHONPATH']}"}
    south.start()
    attacked.wait()
    north = attacked.consortium["north"]
    assert "9.9" in next(one["notice"] for one in north.ask("/status")["peers"] if one["name"] == "south")
    study = propose(attacked.consortium, "two versions", "north", [MEAN])
    view = attacked.consortium.run(study, "north")
    assert view["phase"] == "failed"
    assert "9.9" in view["text"]
    assert "install the same version everywhere" in view["text"]


def test_member_that_is_away_is_named_at_once(south: Node, attacked: Attacked) -> None:
    north = attacked.consortium["north"]
    south.start()
    attacked.wait()
    study = propose(attacked.consortium, "one is away", "north", [MEAN])
    south.stop()
    eventually(lambda: trouble(north, "south"), "the link is down")
    with pytest.raises(RefusedError, match="there is no link to south"):
        north.ask("/run", {"study": study.hash})


# Disks


def test_state_that_was_lost_comes_back(attacked: Attacked, south: Node) -> None:
    """Studies and their records, and the result, from the others; the new audit log begins anew."""
    south.start()
    attacked.wait()
    study = propose(attacked.consortium, "before the fire", "north", [MEAN, COUNT])
    finish(attacked.consortium, study, "north")
    results(attacked.consortium, study)
    before = south.result(study.hash)
    south.stop()
    kept = south.directory / "kept"
    south.state.rename(kept)
    try:
        south.start()
        attacked.wait()
        eventually(lambda: knows(south, study.hash), "south hears of the study again")
        eventually(lambda: south.result(study.hash), "south has the result again", seconds=30)
        found = south.result(study.hash)
        assert found is not None
        assert before is not None
        assert found["result"] == before["result"]
        assert found["from"] in ("north", "city")
        with pytest.raises(RefusedError):  # and nothing is computed a second time
            south.ask("/run", {"study": study.hash})
    finally:
        south.stop()
        shutil.rmtree(south.state)
        kept.rename(south.state)
        south.start()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 24 MiB at a folder."""
    folder.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk as Linux does")
def test_full_disk_is_told_and_nothing_is_half_written(attacked: Attacked, south: Node) -> None:
    file = south.directory / "node.toml"
    file.write_text(file.read_text("utf-8").replace('"state"\n', '"small"\n'), "utf-8")
    with small_disk(south.directory / "small"):
        south.state_name = "small"
        south.start()
        try:
            attacked.wait()
            study = propose(attacked.consortium, "with room", "north", [MEAN])
            filler = south.directory / "small" / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as full:
                while full.write(bytes(1 << 16)):
                    pass
            # A new study is turned away at its disk, and its proposer can see why.
            north = attacked.consortium["north"]
            other = Draft(attacked.consortium, "without room", [MEAN]).write(north.directory / "other.toml")
            north("propose", other)
            eventually(
                lambda: any("disk" in text for text in north.study("without room")["troubles"]), "north is told of it"
            )
            assert south.ask_anyway("/healthz")[1]["problems"]
            filler.unlink()
            eventually(lambda: south.ask_anyway("/healthz")[0] == 200, "it is well again")
            assert south.ask("/status")["damaged"] == []
            finish(attacked.consortium, study, "north")
        finally:
            south.stop()
            south.state_name = "state"


def test_cancelled_study_stops_everywhere(attacked: Attacked) -> None:
    consortium: Consortium = attacked.consortium
    study = propose(consortium, "called off", "north", [LONG])
    consortium.begin(study, "north")
    eventually(lambda: consortium["city"].study(study.hash)["phase"] == "running", "it runs")
    consortium["city"]("cancel", study.hash, "--reason", "the ethics committee asks for it")
    for node in consortium:

        def ended(node: Node = node) -> bool:
            view = node.study(study.hash)
            return view["phase"] == "cancelled" and view["running"] is None

        eventually(ended, f"{node.name} has stopped")
        assert "the ethics committee asks for it" in node.study(study.hash)["text"]
        assert node.result(study.hash) is None
