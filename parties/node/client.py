"""The owner's side of the socket: what commands use to talk to a node that runs on this machine."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mpc.errors import SottovoceError
from parties.node.config import FILE_NAME, load_config
from parties.node.own_socket import SOCKET_NAME, reachable

VARIABLE = "SOTTOVOCE_NODE"
_SECONDS = 60.0


class NodeUnreachableError(SottovoceError):
    """No node answers there; says what to do."""


class DeniedError(SottovoceError):
    """The node did not do what it was asked for; its own words."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("node", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with reachable(self._path) as name:
            self.sock.connect(name)


class NodeClient:
    """Talks to one node.

    Parameters
    ----------
    state : Path
        The node's state directory.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / SOCKET_NAME

    def get(self, what: str, **query: str) -> Any:
        """Ask for something; raises :class:`DeniedError` in the node's words if it refuses."""
        return self._answer("GET", _target(what, query), None)

    def post(self, what: str, body: Mapping[str, Any]) -> Any:
        """Ask for something to be done; raises as :meth:`get`."""
        return self._answer("POST", f"/{what}", json.dumps(body).encode())

    def lines(self, what: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield what the node tells, as it comes; raises as :meth:`get`."""
        connection = self._connect(None)
        try:
            response = self._ask(connection, "GET", _target(what, query), None)
            while line := response.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError):
            raise NodeUnreachableError("the node was stopped meanwhile; what it began goes on when it is up") from None
        finally:
            connection.close()

    def text(self, what: str) -> str:
        """Return a text, such as the figures for Prometheus."""
        connection = self._connect(_SECONDS)
        try:
            return self._ask(connection, "GET", f"/{what}", None).read().decode()
        finally:
            connection.close()

    def _answer(self, method: str, target: str, body: bytes | None) -> Any:
        connection = self._connect(_SECONDS)
        try:
            return json.loads(self._ask(connection, method, target, body).read())
        except TimeoutError:
            raise NodeUnreachableError(f"the node does not answer within {_SECONDS:g} s; see its log") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NodeUnreachableError(f"the node broke off ({type(error).__name__}); see its log") from None
        finally:
            connection.close()

    def _connect(self, timeout: float | None) -> _UnixConnection:
        connection = _UnixConnection(self._path, timeout)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            raise NodeUnreachableError(
                f"no node runs in {self._path.parent.parent}: start it with sottovoce node --config "
                f"{self._path.parent.parent / FILE_NAME}"
            ) from None
        except PermissionError:
            connection.close()
            raise NodeUnreachableError(f"{self._path} belongs to another user: run this as the node's user") from None
        except OSError as error:
            connection.close()
            raise NodeUnreachableError(f"{self._path}: {(error.strerror or type(error).__name__).lower()}") from None
        return connection

    def _ask(
        self, connection: _UnixConnection, method: str, target: str, body: bytes | None
    ) -> http.client.HTTPResponse:
        connection.request(method, target, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status == 200 or (response.status == 503 and target == "/healthz"):
            return response
        if response.status == 409:
            raise DeniedError(str(json.loads(response.read())["error"]))
        if response.status == 403:
            raise NodeUnreachableError(f"{self._path} serves its owner's user alone: run this as that user")
        raise NodeUnreachableError(f"the node does not understand this command (HTTP {response.status}): same version?")


def find_node(where: Path | None) -> NodeClient:
    """Return the client of the node that a command means.

    Parameters
    ----------
    where : Path, optional
        A ``node.toml`` or its directory; else ``SOTTOVOCE_NODE`` says, else it is the current directory.

    Raises
    ------
    ConfigError
        If there is no node there.
    """
    chosen = where if where is not None else Path(os.environ.get(VARIABLE) or ".")
    return NodeClient(load_config(chosen).state)


def _target(what: str, query: Mapping[str, str]) -> str:
    return f"/{what}?{urlencode(query)}" if query else f"/{what}"
