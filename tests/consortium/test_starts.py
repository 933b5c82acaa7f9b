"""What goes wrong when a node is started: one line says what it is, and what to do."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator

import pytest

from parties.governance import keys
from tests.consortium.conftest import Attacked
from tests.consortium.nodes import Node


def refused_start(node: Node) -> str:
    """Start a node that must not start; return the line in which it says why."""
    done = subprocess.run(
        [*node.command, *("--config", str(node.directory / "node.toml"))],
        env=node.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("sottovoce: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def stopped(attacked: Attacked) -> Iterator[Node]:
    """A node that does not run, as long as it is to be started in vain."""
    node = attacked.consortium["south"]
    node.stop()
    yield node
    node.start()
    attacked.wait()


@pytest.fixture
def south(stopped: Node) -> Iterator[Node]:
    """The same for a test; afterwards its files are as before."""
    kept = {path: path.read_bytes() for path in stopped.directory.iterdir() if path.is_file()}
    yield stopped
    for path, content in kept.items():
        path.write_bytes(content)
    (stopped.directory / "key.pem").chmod(0o600)


def test_key_that_others_can_read(south: Node) -> None:
    (south.directory / "key.pem").chmod(0o644)
    assert "chmod 600" in refused_start(south)


def test_directory_that_others_can_enter(south: Node) -> None:
    south.state.chmod(0o755)
    try:
        assert "chmod 700" in refused_start(south)
    finally:
        south.state.chmod(0o700)


def test_second_node_in_the_same_directory(attacked: Attacked) -> None:
    north = attacked.consortium["north"]
    assert "another node runs in" in refused_start(north)
    assert north.ask("/status")["name"] == "north"  # the first one runs on


def test_started_as_another_role(south: Node) -> None:
    south.role = "dealer"
    try:
        assert "start it with sottovoce node" in refused_start(south)
    finally:
        south.role = "party"


def test_typing_error_in_the_configuration(south: Node) -> None:
    file = south.directory / "node.toml"
    file.write_text("allow_programms = false\n" + file.read_text("utf-8"), "utf-8")
    line = refused_start(south)
    assert "allow_programms: there is no such key" in line
    assert str(file) in line


def test_log_that_was_altered(south: Node) -> None:
    log = south.state / "audit.jsonl"
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"event":"started"', b'"event":"Started"', 1))
    try:
        assert "put it aside for an inquiry" in refused_start(south)
        done = south.attempt("audit", "verify", south.directory)
        assert done.returncode == 1
        assert "line 2: the signature does not fit" in done.stdout
    finally:
        log.write_bytes(content)


def expired(node: Node) -> None:
    """Make a certificate of the node's own key that is no longer valid, and a consortium file that holds it."""
    key = keys.load(node.directory / "key.pem", node.directory / "certificate.pem")
    old = key.renew(lifetime=datetime.timedelta(minutes=-30))
    old.save_certificate(node.directory / "certificate.pem")


def test_certificate_that_has_expired(south: Node) -> None:
    expired(south)
    line = refused_start(south)
    assert "expired on" in line
    assert "keygen --renew" in line
    done = south.attempt("keygen", "--renew", "--directory", south.directory)
    assert done.returncode == 0, done.stderr
    assert "sottovoce consortium renew" in done.stdout
    assert "does not hold our certificate" in refused_start(south)
