"""``sottovoce node`` and ``sottovoce dealer``: run a node until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parties.node.service import Node

Config = Annotated[Path, typer.Option("--config", "-c", help="The node's node.toml, or its directory.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (node, dealer):
        app.command(rich_help_panel="Nodes")(command)


def node(config: Config = Path("node.toml"), verbose: Verbose = False) -> None:
    """Run this organisation's node, until SIGTERM or Ctrl-C; SIGHUP reads the consortium file again.

    It logs to standard error. Studies are proposed, approved and run with the other commands, by the same user
    on the same machine.
    """
    _run(config, "party", verbose)


def dealer(config: Config = Path("node.toml"), verbose: Verbose = False) -> None:
    """Run the consortium's dealer, which hands out masks and sees no data; otherwise like node."""
    _run(config, "dealer", verbose)


def _run(config: Path, role: str, verbose: bool) -> None:
    import asyncio
    import logging

    from parties.node.config import load_config
    from parties.node.running import run_node

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    if not verbose:
        logging.getLogger("asyncio").setLevel(logging.WARNING)

    def ready(running: Node) -> None:
        at = running.config.listen or "no address: it meets the others at the relay"
        logging.getLogger(__name__).info(
            "%s of consortium %s is up at %s; fingerprint of the consortium file: %s",
            running.config.name,
            running.consortium.name,
            at,
            running.consortium.fingerprint,
        )

    asyncio.run(run_node(load_config(config), ready=ready, role=role))
