"""Members with directories of their own, and their nodes as processes: what an IT department would set up."""

from __future__ import annotations

import datetime
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpc import F127
from parties.governance import cards, keys
from parties.governance.consortium import join
from parties.governance.studies import Study, read_study
from tests.ports import free_ports

ROOT = Path(__file__).parent.parent.parent
SOTTOVOCE = [sys.executable, "-X", "faulthandler", "-c", "from parties.cli import main; main()"]
# Of a command; what a node has to do within that is small, but the machine may be busy.
COMMAND_SECONDS = 60.0


def environment(**more: str) -> dict[str, str]:
    """What a command needs of our environment, and nothing that would change what it does."""
    kept = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "COVERAGE_PROCESS_START"]
    kept += ["SSL_CERT_FILE", "SSL_CERT_DIR"]
    ours = {name: os.environ[name] for name in kept if name in os.environ}
    return ours | {"PYTHONPATH": str(ROOT), "SOTTOVOCE_KERNELS": F127.backend, "COLUMNS": "120", "NO_COLOR": "1"} | more


def run(*words: str | Path, before: Sequence[str] = (), check: bool = True, **variables: str) -> str:
    """Run a command of ``sottovoce``; returns what it printed, or raises with all it said."""
    done = attempt(*words, before=before, **variables)
    if check and done.returncode != 0:
        raise AssertionError(
            f"sottovoce {' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def attempt(*words: str | Path, before: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ``sottovoce`` that may fail."""
    return subprocess.run(
        [*before, *SOTTOVOCE, *map(str, words)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def eventually(
    true: Callable[[], Any], what: str | Callable[[], str], *, seconds: float = 20.0, pause: float = 0.05
) -> Any:
    """Wait until something is so; returns what it gave. What is said if it is not may be looked up only then."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
    return found


def toml(table: Mapping[str, Any], tables: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> str:
    """Write what our files hold; JSON's texts, numbers and lists are also TOML's."""

    def value(given: Any) -> str:
        if isinstance(given, datetime.datetime):
            return given.isoformat()
        if isinstance(given, dict):
            return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in given.items()) + " }"
        return json.dumps(given)

    lines = [f"{key} = {value(given)}" for key, given in table.items()]
    for name, rows in tables:
        lines += ["", name, *(f"{key} = {value(given)}" for key, given in rows.items())]
    return "\n".join(lines) + "\n"


class RefusedError(Exception):
    """A node does not do what was asked of it; the text is what it says."""


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, whose path may be longer than the system's limit for such."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        folder = os.open(self._path.parent, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        except BaseException:
            self.sock.close()
            raise
        finally:
            os.close(folder)


@dataclass
class Node:
    """One member: its directory, and its node while it runs.

    Attributes
    ----------
    name : str
    directory : Path
        Key, certificate, card, consortium file, ``node.toml``, data, state and log.
    role : str
        ``party`` or ``dealer``.
    before : sequence of str
        What a command of this member begins with: ``ip netns exec ...``.
    port, monitor : int
        Where it listens; 0 if it is behind a firewall, or has no monitoring.
    """

    name: str
    directory: Path
    role: str = "party"
    before: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 0
    monitor: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    sections: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    state_name: str = "state"
    process: subprocess.Popen[bytes] | None = None
    asked_to_stop: bool = False

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.directory / "node.log"

    @property
    def state(self) -> Path:
        """Where it keeps what it has to keep."""
        return self.directory / self.state_name

    def write_config(self) -> None:
        """Write ``node.toml``."""
        settings: dict[str, Any] = {
            "name": self.name,
            "consortium": "consortium.toml",
            "key": "key.pem",
            "certificate": "certificate.pem",
            "state": "state",
        }
        if self.port:
            settings["listen"] = f"{self.host}:{self.port}"
        if self.monitor:
            settings["monitor"] = f"127.0.0.1:{self.monitor}"
        (self.directory / "node.toml").write_text(toml(settings | self.settings, self.sections), "utf-8")

    @property
    def command(self) -> list[str]:
        """What starts its node."""
        return [*self.before, *SOTTOVOCE, "dealer" if self.role == "dealer" else "node"]

    @property
    def environment(self) -> dict[str, str]:
        """In which its node runs."""
        return environment(**{"PYTHONWARNINGS": "default", **self.variables})

    def start(self) -> None:
        """Start the node, as a service manager would."""
        assert self.process is None, f"{self.name} runs"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--config", str(self.directory / "node.toml")],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The node's process."""
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    def stop(self, seconds: float = 20.0) -> int:
        """Ask the node to end, and wait; returns its exit status."""
        return self._end(signal.SIGTERM, seconds)

    def ask_to_stop(self) -> None:
        """Ask the node to end, and do not wait."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.asked_to_stop = True

    def kill(self) -> None:
        """End the node as a power failure would."""
        self._end(signal.SIGKILL, 10.0)

    def _end(self, number: signal.Signals, seconds: float) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        if not (number is signal.SIGTERM and self.asked_to_stop):  # a second one ends it at once, as it should
            process.send_signal(number)
        self.asked_to_stop = False
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise AssertionError(f"{self.name} did not end within {seconds:g} s of {number.name}") from None

    # ---- commands -------------------------------------------------------------------------------

    def __call__(self, *words: str | Path, check: bool = True) -> str:
        """Run a command at this node: ``north("approve", "7f3a")``."""
        return run(*words, before=self.before, check=check, SOTTOVOCE_NODE=str(self.directory))

    def attempt(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command at this node that may fail."""
        return attempt(*words, before=self.before, SOTTOVOCE_NODE=str(self.directory))

    def start_command(self, *words: str) -> subprocess.Popen[str]:
        """Run a command at this node beside us."""
        return subprocess.Popen(
            [*self.before, *SOTTOVOCE, *words],
            env=environment(SOTTOVOCE_NODE=str(self.directory)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    # ---- looking --------------------------------------------------------------------------------

    def fetch(self, path: str) -> tuple[int, str]:
        """Ask the monitoring address of a node on this host; status 0 if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def healthy(self) -> bool:
        """Whether the node says that all is well: it runs, and all its peers are there."""
        try:
            return all(self.ask("/healthz")["peers"].values())
        except (RefusedError, OSError, http.client.HTTPException):  # not well, or not up
            return False

    def ask(self, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """Ask the node's own socket, as its commands do, or have it do something if there is a body.

        Raises
        ------
        RefusedError
            With what the node says.
        """
        status, content = self.ask_anyway(path, body, **query)
        if status != 200:
            raise RefusedError(str(content.get("error", content)))
        return content

    def ask_anyway(self, path: str, body: Mapping[str, Any] | None = None, **query: str) -> tuple[int, Any]:
        """Ask the node's own socket; returns status and content of the answer, whatever it is."""
        connection = _LocalConnection(self.state / "node.sock")
        try:
            where = f"{path}?{urllib.parse.urlencode(query)}" if query else path
            connection.request("GET" if body is None else "POST", where, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def study(self, study: str) -> dict[str, Any]:
        """Return what the node says of a study."""
        found: dict[str, Any] = self.ask("/study", study=study)
        return found

    def audit(self) -> list[dict[str, Any]]:
        """Return the entries of the node's audit log."""
        lines = (self.state / "audit.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def said(self) -> str:
        """Return what the node has logged."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def result(self, study: str) -> dict[str, Any] | None:
        """Return the result that the node keeps of a study, given by its hash."""
        path = self.state / "studies" / study / "result.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None


@dataclass
class Consortium:
    """All members of one consortium, in one folder."""

    folder: Path
    nodes: dict[str, Node]
    name: str = "three-hospitals"
    fingerprint: str = ""

    @classmethod
    def found(
        cls,
        folder: Path,
        parties: Sequence[str] = ("north", "city", "south"),
        *,
        dealer: str | None = "helper",
        relay: str | None = None,
        listens: Callable[[str], bool] = lambda name: True,
        addresses: Mapping[str, str] | None = None,
        ports: Mapping[str, int] | None = None,
        before: Mapping[str, Sequence[str]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Consortium:
        """Make keys, cards and configurations, as the members would.

        Parameters
        ----------
        folder : Path
        parties, dealer : names
        relay : str, optional
            Its URL, for members that do not listen.
        listens : callable
            Whether a member can be dialled.
        addresses : mapping, optional
            What stands in a member's card instead of where it listens: a proxy's address, or a host's of its own.
        ports : mapping, optional
            Where members listen; by default any free port.
        before : mapping, optional
            What commands of a member begin with.
        settings : mapping, optional
            More for each ``node.toml``.
        """
        names = [*parties, *([dealer] if dealer else [])]
        free = free_ports(2 * len(names))
        consortium = cls(folder, {})
        for number, name in enumerate(names):
            directory = folder / name
            directory.mkdir(parents=True, mode=0o700)
            node = Node(name, directory, "dealer" if name == dealer else "party")
            node.before = (before or {}).get(name, ())
            node.port = (ports or {}).get(name, free[2 * number]) if listens(name) else 0
            node.monitor = free[2 * number + 1]
            node.settings = dict(settings or {})
            address = (addresses or {}).get(name, f"{node.host}:{node.port}")
            key = keys.generate(name)
            key.save(directory)
            made = cards.make_card(
                key,
                name=name,
                organisation=f"{name.title()} hospital",
                role="dealer" if name == dealer else "party",
                address=address if node.port else None,
                relay=relay,
            )
            cards.write_card(made, directory / "card.toml")
            consortium.nodes[name] = node
        consortium.join()
        return consortium

    def join(self) -> None:
        """Every member joins the cards of all into its own copy of the consortium file."""
        joined = join([cards.read_card(node.directory / "card.toml") for node in self], self.name)
        for node in self:
            joined.save(node.directory / "consortium.toml")
        self.fingerprint = joined.fingerprint

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    @property
    def parties(self) -> list[Node]:
        """The members that have data."""
        return [node for node in self if node.role == "party"]

    def start(self, *, healthy: bool = True) -> None:
        """Start all nodes, and wait until they see each other."""
        for node in self:
            node.write_config()
            node.start()
        if healthy:
            self.wait()

    def wait(self, seconds: float = 30.0) -> None:
        """Wait until all nodes are well."""
        for node in self:

            def well(node: Node = node) -> bool:
                assert node.process is None or node.process.poll() is None, f"{node.name} ended: {node.said()[-2000:]}"
                return node.healthy()

            def said(node: Node = node) -> str:
                return f"{node.name} is well; it said: {node.said()[-1000:]}"

            eventually(well, said, seconds=seconds)

    def stop(self) -> None:
        """Stop all nodes; raises what is to say of one that did not end well."""
        faults = []
        for node in self:
            node.ask_to_stop()
        for node in self:
            if node.process is None:
                continue
            try:
                status = node.stop()
            except AssertionError as error:
                faults.append(str(error))
            else:
                if status != 0:
                    faults.append(f"{node.name} ended with {status}: {node.said()[-2000:]}")
        assert not faults, faults

    @property
    def ports(self) -> list[int]:
        """All ports on which nodes of this machine may listen."""
        return [port for node in self for port in (node.port, node.monitor) if port]

    # ---- studies --------------------------------------------------------------------------------

    def propose(self, file: Path, by: str) -> Study:
        """One member proposes a study, and all approve it."""
        study, program = read_study(file)
        self[by].ask("/studies", {"study": study.plain(), "program": program})
        for node in self:
            if node.name in study.members:

                def heard(node: Node = node) -> bool:
                    return knows(node, study.hash)

                eventually(heard, f"{node.name} has heard of the study")
                node.ask("/approve", {"study": study.hash})
        return study

    def run(self, study: Study, by: str, *, seconds: float = 60.0) -> dict[str, Any]:
        """One member runs a study; returns what its node says in the end."""
        self.begin(study, by)
        return self.settle(study, by, seconds=seconds)

    def begin(self, study: Study, by: str) -> None:
        """One member runs a study, and nobody waits."""
        eventually(lambda: self[by].study(study.hash)["phase"] == "approved", f"{by} has all approvals")
        self[by].ask("/run", {"study": study.hash})

    def settle(self, study: Study, at: str, *, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until nothing happens to a study any more, as one member sees it; returns what that one says."""
        view: dict[str, Any] = {}

        def over() -> bool:
            nonlocal view
            view = self[at].study(study.hash)
            return bool(view["over"])

        try:
            eventually(over, "over", seconds=seconds)
        except AssertionError:
            raise AssertionError(f"not over within {seconds:g} s at {at}: {view.get('text')}") from None
        return view


def knows(node: Node, study: str) -> bool:
    """Whether a node has heard of a study."""
    try:
        node.study(study)
    except RefusedError:
        return False
    return True
