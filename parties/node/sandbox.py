"""A consortium on one machine: made, started in the background, and stopped."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mpc.errors import SottovoceError
from parties.governance.cards import Role, make_card, write_card
from parties.governance.consortium import join
from parties.governance.keys import generate
from parties.node.client import DeniedError, NodeClient, NodeUnreachableError
from parties.node.config import FILE_NAME, NodeConfig, load_config
from parties.node.store import running_pid

HOSPITALS = ("north", "city", "south", "east", "west")
DEALER = "dealer"
CONSORTIUM = "sandbox"
LOG_FILE = "node.log"
_ROWS = 120
_STOP_SECONDS = 30.0
_LAST_LINES = 3


class SandboxError(SottovoceError, RuntimeError):
    """A sandbox cannot be made, started or stopped; says what to do."""


# ---- making ---------------------------------------------------------------------------------------


def make_sandbox(directory: Path, hospitals: int, *, with_dealer: bool) -> list[str]:
    """Make the directories of a few hospitals and of a dealer; returns their names.

    Raises
    ------
    SandboxError
        If the directory is there already.
    """
    parties = list(HOSPITALS[:hospitals])
    names = [*parties, *([DEALER] if with_dealer else [])]
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise SandboxError(f"{directory} exists already: name another directory, or remove it") from None
    except OSError as error:
        raise SandboxError(f"{directory} cannot be made: {(error.strerror or type(error).__name__).lower()}") from None
    addresses = dict(zip(names, _free_addresses(len(names)), strict=True))
    cards = []
    for name in names:
        key = generate(name)
        key.save(directory / name)
        role: Role = "dealer" if name == DEALER else "party"
        organisation = "Dealer of the sandbox" if name == DEALER else f"{name.capitalize()} Hospital"
        card = make_card(key, name=name, organisation=organisation, role=role, address=addresses[name], relay=None)
        write_card(card, directory / name / "card.toml")
        cards.append(card)
    consortium = join(cards, CONSORTIUM)
    for name in names:
        consortium.save(directory / name / "consortium.toml")
        (directory / name / FILE_NAME).write_text(_settings(name, addresses[name]), "utf-8")
        if name != DEALER:
            (directory / name / "data.csv").write_text("".join(_rows(name)), "utf-8")
    (directory / "study.toml").write_text(_study(parties, with_dealer), "utf-8")
    return names


def _free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _settings(name: str, address: str) -> str:
    settings = f'''\
name = "{name}"
consortium = "consortium.toml"
key = "key.pem"
certificate = "certificate.pem"
listen = "{address}"
'''
    if name == DEALER:
        return settings
    return f"""{settings}
# Where this hospital's rows are: for all studies that do not have an entry of their own.
[[sources]]
study = "*"
kind = "csv"
path = "data.csv"
"""


def _rows(name: str) -> Iterator[str]:
    """Make up patients; the same for the same name, and of nobody."""
    yield "age,bmi,treated,readmitted\n"
    for row in range(_ROWS):
        age, shape, draw, fate = (_chance(f"{name} {row} {what}") for what in ("age", "bmi", "treated", "fate"))
        years, bmi, treated = round(25 + 60 * age), round(19 + 16 * shape, 1), draw < 0.5
        odds = -1.2 + 0.035 * (years - 55) + 0.08 * (bmi - 27) - 0.6 * treated
        readmitted = fate < 1 / (1 + math.exp(-odds))
        yield f"{years},{bmi},{int(treated)},{int(readmitted)}\n"


def _chance(what: str) -> float:
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:6], "big") / (1 << 48)


def _study(parties: list[str], with_dealer: bool) -> str:
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    names = ", ".join(f'"{name}"' for name in parties)
    preprocessing = f'"dealer"\ndealer = "{DEALER}"' if with_dealer else '"prss"'
    return f'''\
format = 1
title = "Readmission"
purpose = "To try Sottovoce on made-up patients: who is readmitted within 30 days?"
consortium = "{CONSORTIUM}"

contributors = [{names}]
recipients = [{names}]
preprocessing = {preprocessing}
disclosure = "vantage6"  # which results are too small to be opened
deadline = {deadline:%Y-%m-%dT%H:%M:%SZ}

[[columns]]
name = "age"
type = "integer"
unit = "years"
lower = 0
upper = 120

[[columns]]
name = "bmi"
type = "number"
unit = "kg/m2"
lower = 10
upper = 80

[[columns]]
name = "treated"
type = "boolean"

[[columns]]
name = "readmitted"
type = "boolean"

[[analyses]]
name = "means"
protocol = "mean"
columns = ["age", "bmi"]

[[analyses]]
name = "readmission"
protocol = "logistic_regression"
outcome = "readmitted"
features = ["age", "bmi", "treated"]
'''


# ---- starting and stopping ------------------------------------------------------------------------


def nodes_of(directory: Path) -> dict[str, NodeConfig]:
    """Return the nodes of a sandbox by name.

    Raises
    ------
    SandboxError
        If there are none.
    """
    found = [load_config(file) for file in sorted(directory.glob(f"*/{FILE_NAME}"))]
    if not found:
        raise SandboxError(f"{directory} is no sandbox: make one with sottovoce sandbox {directory}")
    return {config.name: config for config in found}


def start_all(directory: Path, seconds: float) -> dict[str, int]:
    """Start the nodes that do not run, and wait until all are linked; returns their processes.

    Raises
    ------
    SandboxError
        If one does not come up; quotes the end of its log. Those that were started are stopped again.
    """
    nodes = nodes_of(directory)
    until = time.monotonic() + seconds
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, config in nodes.items():
            if running_pid(config.state) is None:
                started[name] = _start(config)
        waiting = dict(nodes)
        while waiting:
            for name, config in list(waiting.items()):
                process = started.get(name)
                if process is not None and process.poll() is not None:
                    raise SandboxError(f"{name} did not start: {_last_words(config)}")
                if _is_linked(config):
                    del waiting[name]
            if waiting and time.monotonic() > until:
                raise SandboxError(f"not linked within {seconds:g} s: {', '.join(waiting)}; see their {LOG_FILE}")
            time.sleep(0.1)
    except BaseException:
        for process in started.values():
            process.terminate()
        for process in started.values():
            _wait(process)
        raise
    for process in started.values():
        process.returncode = 0  # it lives on without us: nobody is to wait for it
    return {name: running_pid(config.state) or 0 for name, config in nodes.items()}


def _start(config: NodeConfig) -> subprocess.Popen[bytes]:
    role = "dealer" if config.name == DEALER else "node"
    program = "from parties.cli import main; main()"
    log = os.open(config.base / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and our own command
            [sys.executable, "-P", "-c", program, role, "--config", str(config.file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=config.base,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (_root(), os.environ.get("PYTHONPATH"))))},
            start_new_session=True,
        )
    finally:
        os.close(log)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _root() -> str:
    return str(Path(__file__).resolve().parents[2])


def _is_linked(config: NodeConfig) -> bool:
    try:
        peers = NodeClient(config.state).get("status")["peers"]
    except (NodeUnreachableError, DeniedError):
        return False
    return all(peer["connected"] for peer in peers)


def _last_words(config: NodeConfig) -> str:
    with contextlib.suppress(OSError):
        lines = (config.base / LOG_FILE).read_text("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-_LAST_LINES:]) or "it said nothing"
    return f"see {config.base / LOG_FILE}"


def stop_all(directory: Path) -> list[str]:
    """Stop the nodes of a sandbox that run, all at once; returns their names when the processes are gone."""
    nodes = nodes_of(directory)
    running = {name: pid for name, config in nodes.items() if (pid := running_pid(config.state)) is not None}
    for pid in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + _STOP_SECONDS
    for pid in running.values():
        while not _is_gone(pid):
            if time.monotonic() > until:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    return list(running)


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:  # ours, if we are the process that started it
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
