"""Where a worker may have to connect to: the study's other members, their relays, our proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from parties.governance.consortium import Consortium
    from parties.governance.studies import Study

_PORTS = {"https": 443, "http": 80}


def places(study: Study, consortium: Consortium, ours: str, proxy: str | None) -> tuple[str, ...]:
    """Return ``host:port`` of each place.

    Parameters
    ----------
    study : Study
    consortium : Consortium
    ours : str
        Our name.
    proxy : str or None
        ``http://...`` through which relays are reached.

    Raises
    ------
    ConsortiumError
        If a member of the study is no member of the consortium any more.
    """
    members = [consortium.member(name) for name in study.members]
    found = [member.address for member in members if member.address is not None and member.name != ours]
    relays = [member.relay for member in members if member.relay is not None]
    if relays:
        found += [_place(url) for url in ([proxy] if proxy is not None else relays)]
    return tuple(dict.fromkeys(found))


def _place(url: str) -> str:
    """Return host and port of an address, without user and password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or _PORTS[parts.scheme]}"
