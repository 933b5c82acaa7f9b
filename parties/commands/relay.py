"""``sottovoce relay``: for nodes that may only dial out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def relay(
        listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen, such as 0.0.0.0:443.")],
        consortium: Annotated[
            list[Path],
            typer.Option(exists=True, dir_okay=False, help="File of a consortium to serve; may be given again."),
        ],
        certificate: Annotated[
            Path | None, typer.Option(exists=True, dir_okay=False, help="The relay's TLS certificate (chain), PEM.")
        ] = None,
        key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="The key of that, PEM.")] = None,
        behind_proxy: Annotated[
            bool, typer.Option("--behind-proxy", help="Plain HTTP on loopback, for a reverse proxy that does TLS.")
        ] = False,
        name: Annotated[
            list[str] | None,
            typer.Option(help="Host name by which nodes dial it; by default those in the certificate."),
        ] = None,
        monitor: Annotated[
            str | None, typer.Option(metavar="HOST:PORT", help="Tell /metrics and /healthz here, in plain HTTP.")
        ] = None,
    ) -> None:
        """Forward between nodes that may only dial out; reads nothing of what they send.

        Serves the members of the given consortia. SIGHUP reads consortium files and certificate again.
        """
        from parties.relay.process import RelayConfig, run_relay

        host, port = _address(listen, "--listen")
        run_relay(
            RelayConfig(
                host,
                port,
                tuple(consortium),
                certificate,
                key,
                behind_proxy,
                tuple(name or ()),
                None if monitor is None else _address(monitor, "--monitor"),
            )
        )


def _address(text: str, option: str) -> tuple[str, int]:
    from parties.governance.checks import parse_address

    try:
        return parse_address(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
