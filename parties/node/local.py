"""The owner's door: a Unix socket that only the owner's user can open, and HTTP with JSON over it.

The socket lies in the node's private directory with mode 0600, and the system tells who connects
(``SO_PEERCRED``). Commands of the command line are its clients; so can be programs of one's own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from mpc.errors import SottovoceError
from parties.governance.canonical import parse
from parties.governance.errors import GovernanceError
from parties.node.own_socket import SOCKET_NAME, reachable
from parties.node.owner import Owner

MOST_BYTES = 1 << 20
_CREDENTIALS = struct.Struct("3i")

log = logging.getLogger(__name__)

Deed = Callable[[str, dict[str, Any]], Any]


class LocalServer:
    """Serves the owner on a Unix socket.

    Parameters
    ----------
    owner : Owner
    directory : Path
        The node's private directory, where the socket goes.
    figures : callable
        Returns the text for Prometheus.
    health : callable
        Returns whether the node is well, and how it is.
    """

    def __init__(
        self,
        owner: Owner,
        directory: Path,
        *,
        figures: Callable[[], bytes],
        health: Callable[[], tuple[bool, dict[str, Any]]],
    ) -> None:
        self._owner = owner
        self._path = directory / SOCKET_NAME
        self._figures = figures
        self._health = health
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Begin to serve."""
        app = web.Application(client_max_size=MOST_BYTES, middlewares=[_for_the_owner])
        deeds: dict[str, Deed] = {
            "approve": lambda which, _: self._owner.approve(which),
            "reject": lambda which, body: self._owner.reject(which, _text(body, "reason")),
            "cancel": lambda which, body: self._owner.cancel(which, _text(body, "reason")),
            "run": lambda which, body: self._owner.run(which, dry=body.get("dry") is True),
            "prepare": lambda which, body: self._owner.prepare(
                which, runs=_number(body, "runs"), rows=_number(body, "rows")
            ),
        }
        app.router.add_get("/status", _answering(lambda request: self._owner.status()))
        app.router.add_get("/studies", self._studies)
        app.router.add_post("/studies", self._propose)
        app.router.add_get("/study", _answering(lambda request: self._owner.show(_which(request))))
        app.router.add_get("/result", _answering(lambda request: self._owner.result(_which(request))))
        app.router.add_get("/progress", self._progress)
        for name, deed in deeds.items():
            app.router.add_post(f"/{name}", _doing(deed))
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        # An interrupted client ends its handler: nobody waits for progress that nobody reads.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.SockSite(self._runner, self._bound())
        await site.start()

    def _bound(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of a node that was killed: ours alone holds the directory's lock
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)  # before it has a name: it is never open to others
            with reachable(self._path) as name:
                listener.bind(name)
            self._path.chmod(0o600)
            listener.listen(64)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    async def close(self) -> None:
        """Stop serving; does nothing the second time."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    # ---- what is served -------------------------------------------------------------------------

    async def _studies(self, request: web.Request) -> web.Response:
        return web.json_response(await self._owner.studies())

    async def _propose(self, request: web.Request) -> web.Response:
        body = await _body(request)
        study, program = body.get("study"), body.get("program")
        if not isinstance(study, dict) or not (program is None or isinstance(program, str)):
            raise web.HTTPBadRequest
        return _reply(lambda: self._owner.propose(study, program))

    async def _progress(self, request: web.Request) -> web.StreamResponse:
        views = self._owner.progress(_which(request))
        try:
            first = await anext(views)
        except SottovoceError as error:
            return _refusal(error)
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the reader left
            await response.write(_line(first))
            async for view in views:
                await response.write(_line(view))
        return response

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._figures(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _healthz(self, request: web.Request) -> web.Response:
        well, how = self._health()
        return web.json_response(how, status=200 if well else 503)


@web.middleware
async def _for_the_owner(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    transport = request.transport
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None or not _is_owner(peer):
        log.warning("another user tried the owner's socket")
        raise web.HTTPForbidden
    return await handler(request)


def _is_owner(peer: Any) -> bool:
    """Say whether the other end of a Unix socket belongs to our user, or to root."""
    if not hasattr(socket, "SO_PEERCRED"):  # then the modes of directory and socket have to do
        return True
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid in (os.geteuid(), 0)


def _answering(look: Callable[[web.Request], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return _reply(lambda: look(request))

    return answer


def _doing(deed: Deed) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def do(request: web.Request) -> web.Response:
        body = await _body(request)
        return _reply(lambda: deed(_text(body, "study"), body))

    return do


def _reply(work: Callable[[], Any]) -> web.Response:
    try:
        return web.json_response(work())
    except SottovoceError as error:
        return _refusal(error)


def _refusal(error: SottovoceError) -> web.Response:
    return web.json_response({"error": str(error), "type": type(error).__name__}, status=409)


async def _body(request: web.Request) -> dict[str, Any]:
    data = await request.read()
    try:
        body = parse(data, limit=MOST_BYTES) if data else {}
    except GovernanceError:
        raise web.HTTPBadRequest from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest
    return body


def _which(request: web.Request) -> str:
    return request.query.get("study", "")


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise web.HTTPBadRequest
    return value


def _number(body: dict[str, Any], key: str) -> int:
    value = body.get(key)
    if type(value) is not int:
        raise web.HTTPBadRequest
    return value


def _line(view: dict[str, Any]) -> bytes:
    return json.dumps(view).encode() + b"\n"


async def serve_monitor(
    address: tuple[str, int],
    *,
    figures: Callable[[], bytes],
    health: Callable[[], tuple[bool, dict[str, Any]]],
) -> web.AppRunner:
    """Serve ``/metrics`` and ``/healthz`` in plain HTTP, to whoever can reach the address; nothing else.

    Returns
    -------
    aiohttp.web.AppRunner
        To be cleaned up in the end.
    """

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=figures(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def healthz(request: web.Request) -> web.Response:
        well, how = health()
        return web.json_response(how, status=200 if well else 503)

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, *address).start()
    except OSError as error:
        await runner.cleanup()
        raise MonitorError(
            f"cannot serve figures on {address[0]}:{address[1]}: {(error.strerror or type(error).__name__).lower()}; "
            "change monitor in node.toml"
        ) from None
    return runner


class MonitorError(SottovoceError, OSError):
    """The address for figures cannot be opened."""
