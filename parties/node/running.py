"""A node as a process: sockets for the owner and for monitoring, signals, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from functools import partial

from mpc.errors import SottovoceError
from parties.governance.checks import parse_address
from parties.node import enter, metrics
from parties.node.config import NodeConfig
from parties.node.local import LocalServer, serve_monitor
from parties.node.owner import Owner
from parties.node.service import Node

log = logging.getLogger(__name__)


async def run_node(config: NodeConfig, *, ready: Callable[[Node], None], role: str) -> None:
    """Run a node until SIGTERM or SIGINT; SIGHUP reads consortium file and certificate again.

    Parameters
    ----------
    config : NodeConfig
    ready : callable
        Told of the node once it serves.
    role : {"party", "dealer"}
        What the consortium file must say that we are.

    Raises
    ------
    SottovoceError
        If it cannot start; says what to change.
    """
    enter.keep_to_ourselves()  # before the key is read
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        node = Node(config)
        if node.us.role != role:
            await node.close("it was started as another role")
            other = "sottovoce dealer" if node.us.role == "dealer" else "sottovoce node"
            raise StartError(f"{config.name} is a {node.us.role} in {config.consortium}: start it with {other}")
        await stack.enter_async_context(node)
        loop.add_signal_handler(signal.SIGHUP, _reload, node)
        figures, health = partial(metrics.figures, node), partial(metrics.health, node)
        if config.monitor is not None:
            figures()  # what it needs is missing now, and not when somebody asks
            monitor = await serve_monitor(parse_address(config.monitor), figures=figures, health=health)
            stack.push_async_callback(monitor.cleanup)
        local = LocalServer(Owner(node), config.state, figures=figures, health=health)
        stack.push_async_callback(local.close)
        await local.open()
        ready(node)
        await stop.wait()
        log.info("stopping")


class StartError(SottovoceError, RuntimeError):
    """A node was started in the wrong way."""


def _reload(node: Node) -> None:
    try:
        node.reload()
        log.info("consortium file and certificate were read again: fingerprint %s", node.consortium.fingerprint)
    except SottovoceError as error:
        log.error("everything stays as it was: %s", error)
