"""Running a relay: its files, its sockets, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from cryptography import x509

from mpc.errors import SottovoceError
from parties.governance.consortium import Consortium
from parties.relay.figures import prometheus_text
from parties.relay.passes import Register
from parties.relay.server import Limits, Relay

_BACKLOG = 1024
# What a relay has open beside its connections.
_FILES = 64


class RelayError(SottovoceError, ValueError):
    """The relay cannot start, or not go on, as it is configured; says what to do."""


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """How a relay is run.

    Attributes
    ----------
    host, port : str, int
        Where it listens.
    consortia : sequence of Path
        Files of the consortia whose members it serves.
    certificate, key : Path or None
        PEM; the certificate with those that lead to its authority. None behind a proxy.
    behind_proxy : bool
        Plain HTTP on a loopback address, for a reverse proxy on this machine that does TLS.
    names : sequence of str
        Names by which nodes dial it; those in the certificate, if left out.
    monitor : tuple of str and int, or None
        Where ``/metrics`` and ``/healthz`` are told in plain HTTP; for the operator alone.
    """

    host: str
    port: int
    consortia: Sequence[Path]
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    names: Sequence[str] = ()
    monitor: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if not self.consortia:
            raise RelayError("a relay serves the members of a consortium: give at least one consortium file")
        if self.behind_proxy:
            if self.certificate is not None or self.key is not None:
                raise RelayError("behind a proxy there is no TLS here: leave out certificate and key")
            if not _is_loopback(self.host):
                raise RelayError("behind a proxy a relay listens on a loopback address alone, such as 127.0.0.1:8080")
            if not self.names:
                raise RelayError("behind a proxy a relay cannot know its name: give it, as nodes dial it")
        elif self.certificate is None or self.key is None:
            raise RelayError("a relay needs a certificate and its key, or to be behind a proxy that has them")


async def serve_relay(config: RelayConfig) -> None:
    """Run a relay until it is cancelled; SIGHUP reads its files again.

    Parameters
    ----------
    config : RelayConfig

    Raises
    ------
    RelayError
        If a file cannot be used or an address is taken.
    """
    logger = logging.getLogger("sottovoce.relay")
    limits = _within_files(Limits(), logger)
    register = _register(config)
    tls = _tls(config)
    names = _names(config)
    listener = _listen(config.host, config.port)
    loop = asyncio.get_running_loop()
    # Each connection that went leaves half a megabyte of buffers in cycles of TLS and HTTP objects, too few
    # objects for the collector to come by soon; what was there before the first of them it need not look at.
    gc.collect()
    gc.freeze()
    async with Relay(listener, register, names, tls, logger, limits, gc.collect) as relay, _monitor(config, relay):

        def reload() -> None:
            try:
                relay.serve(_register(config), _names(config), _tls(config))
            except SottovoceError as error:
                logger.error("not reloaded, serving as before: %s", error)

        with _on_hangup(loop, reload):
            port = listener.getsockname()[1]
            logger.info("listening on port %d as %s for %d members", port, ", ".join(names), len(register))
            await relay.forever()


# ---- files ----------------------------------------------------------------------------------------


def _register(config: RelayConfig) -> Register:
    return Register([Consortium.load(path) for path in config.consortia])


def _tls(config: RelayConfig) -> ssl.SSLContext | None:
    if config.behind_proxy:
        return None
    # TLS 1.2 is let in beside 1.3, for the proxies of others: what matters is sealed inside.
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.num_tickets = 0
    if config.certificate is None or config.key is None:
        raise RelayError("a relay that does TLS needs a certificate and its key")
    try:
        context.load_cert_chain(config.certificate, config.key, password="")  # else it would ask for one
    except OSError as error:  # errors of ssl are among them
        raise RelayError(
            f"certificate {config.certificate} and key {config.key} cannot be used together ({type(error).__name__}): "
            "both must be readable PEM, belong to each other, and the key must not be encrypted"
        ) from None
    return context


def _names(config: RelayConfig) -> tuple[str, ...]:
    """Return the host names by which nodes dial the relay: as configured, or as in its certificate."""
    if config.names or config.certificate is None:
        return tuple(config.names)
    try:
        certificate = x509.load_pem_x509_certificates(config.certificate.read_bytes())[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        raise RelayError(f"certificate {config.certificate} does not say for which host names it is") from None
    addresses = (str(each) for each in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


# ---- sockets --------------------------------------------------------------------------------------


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise RelayError(f"cannot listen on {host}, port {port}: {error.strerror or type(error).__name__}") from None


def _within_files(limits: Limits, logger: logging.Logger) -> Limits:
    """Ask the system for as many open files as connections may need, and do with less if it must be."""
    import resource
    from dataclasses import replace

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            logger.warning("only %d open files are allowed here: fewer connections will be taken (ulimit -n)", soft)
            return replace(limits, connections=max(soft - _FILES, 1))
    return limits


@contextlib.asynccontextmanager
async def _monitor(config: RelayConfig, relay: Relay) -> AsyncIterator[None]:
    """Tell figures at an address of their own."""
    if config.monitor is None:
        yield
        return

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/healthz":
            return web.json_response({"status": "ok", **relay.now})
        if request.path != "/metrics":
            raise web.HTTPNotFound
        try:
            text = prometheus_text(relay.figures, lambda: relay.now)
        except ModuleNotFoundError:
            return web.Response(status=501, text="this needs prometheus-client: pip install 'sottovoce[node]'\n")
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    server = web.Server(answer, access_log=None)
    listener = _listen(*config.monitor)
    listening = await asyncio.get_running_loop().create_server(server, sock=listener)
    try:
        yield
    finally:
        listening.close()
        await server.shutdown(1.0)


@contextlib.contextmanager
def _on_hangup(loop: asyncio.AbstractEventLoop, reload: Callable[[], None]) -> Iterator[None]:
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def run_relay(config: RelayConfig) -> None:
    """Run a relay as this process, with its log on standard error, until SIGTERM or SIGINT."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)

    async def main() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is not None:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serve_relay(config)

    from parties.loops import loop_factory

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
