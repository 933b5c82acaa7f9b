"""``node.toml``: what the owner of a node decides alone, and tells nobody.

Where the key lies, where the node listens, which of the organisation's data a study may read, and what
the owner allows. Paths in the file are relative to the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from mpc.errors import SottovoceError
from parties.governance.checks import Strict, first_fault, is_name, parse_address

if TYPE_CHECKING:
    from parties.data.sources import Source
    from parties.governance.studies import Study

FILE_NAME = "node.toml"
_MOST_BYTES = 1 << 20
# A user and a password in an address: of a database, or of a proxy.
_PASSWORD = re.compile(r"://[^/\s\"'@:]+:[^/\s\"'@]+@")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHORTEST_PREFIX = 4


class ConfigError(SottovoceError, ValueError):
    """A ``node.toml`` cannot be used; names the file and the key."""


class Limits(Strict):
    """What one study may take of this machine.

    Attributes
    ----------
    cores : int
        For the process of one study.
    memory_mb : int
        For the process of one study.
    time_seconds : int
        No attempt takes longer here, whatever the study allows.
    studies_at_once : int
        More wait in the queue.
    material_mb : int
        On the disk, for material that is prepared ahead, of all studies together.
    """

    cores: Annotated[int, Field(ge=1, le=1024)] = 1
    memory_mb: Annotated[int, Field(ge=256, le=1 << 24)] = 8192
    time_seconds: Annotated[int, Field(ge=1, le=30 * 86400)] = 86400
    studies_at_once: Annotated[int, Field(ge=1, le=64)] = 2
    material_mb: Annotated[int, Field(ge=0, le=1 << 30)] = 20480


class Policy(Strict):
    """What the owner allows at all: ``approve`` refuses the rest, and says so.

    Attributes
    ----------
    protocols : tuple of str, optional
        Analyses that may be approved; None allows the whole catalogue.
    disclosure : tuple of str, optional
        Presets of disclosure control that are strict enough; None allows all, "none" too.
    preprocessing : tuple of str
        Trust models that are acceptable.
    minimum_parties : int
        A study must ask for at least so many contributors with rows.
    """

    protocols: tuple[str, ...] | None = None
    disclosure: tuple[str, ...] | None = None
    preprocessing: tuple[str, ...] = ("prss", "dealer", "ot")
    minimum_parties: Annotated[int, Field(ge=2, le=64)] = 2

    @field_validator("protocols", "disclosure", "preprocessing", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class NodeConfig(Strict):
    """The settings of one node.

    Attributes
    ----------
    name : str
        Ours, as the consortium file has it.
    consortium, key, certificate : Path
        Files.
    passphrase_file : Path, optional
        Holds the passphrase of the key in its first line.
    listen : str, optional
        ``host:port``; a node behind a firewall has none and meets the others at the relay.
    state : Path
        Directory for everything that the node keeps.
    allow_programs : tuple of str
        SHA-256 of programs of one's own that may run here; empty allows none.
    allow_unconfined : bool
        Whether such a program may run where this machine cannot keep it from the node's files.
    proxy : str, optional
        HTTP proxy for outbound connections to relays.
    relay_ca : Path, optional
        Certificate of the authority of the relay's certificate, where that is a private one.
    monitor : str, optional
        ``host:port`` for ``/metrics`` and ``/healthz``.
    limits, policy : Limits, Policy
        See there.
    file : Path
        Where all this was read from.
    """

    name: str
    consortium: Path
    key: Path
    certificate: Path
    passphrase_file: Path | None = None
    listen: str | None = None
    state: Path
    allow_programs: Literal[False] | tuple[str, ...] = False
    allow_unconfined: bool = False
    proxy: Annotated[str | None, Field(max_length=500, repr=False)] = None
    relay_ca: Path | None = None
    monitor: str | None = None
    limits: Limits = Limits()
    policy: Policy = Policy()
    file: Path
    # Validated by their own models, whose modules need not be loaded to find a node's socket.
    sources: tuple[tuple[str, dict[str, Any]], ...] = Field(default=(), repr=False)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError("a name has 1 to 32 of a-z, 0-9 and -, and begins with a letter")
        return value

    @field_validator("allow_programs", mode="before")
    @classmethod
    def _are_digests(cls, value: object) -> object:
        if value is False:
            return value
        if not isinstance(value, list) or not all(isinstance(v, str) and _DIGEST.fullmatch(v) for v in value):
            raise ValueError('it is false, or a list of SHA-256 in hexadecimal, as "sottovoce show" prints them')
        return tuple(value)

    @field_validator("listen", "monitor")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @property
    def base(self) -> Path:
        """The directory of the file, to which its paths are relative."""
        return self.file.parent

    def source_for(self, study: Study) -> Source | None:
        """Return the source that the owner set for a study: by hash before by title before ``"*"``.

        Raises
        ------
        ConfigError
            If the entry is not a valid source.
        """
        for kind in (_by_hash, _by_title, _by_default):
            for place, (pattern, settings) in enumerate(self.sources, 1):
                if kind(pattern, study):
                    return self._source(place, settings)
        return None

    def check_sources(self) -> None:
        """Refuse now what could not be read when a study begins; raises :class:`ConfigError`."""
        for place, (_, settings) in enumerate(self.sources, 1):
            self._source(place, settings)

    def _source(self, place: int, settings: Mapping[str, Any]) -> Source:
        from parties.data.sources import parse_source

        try:
            return parse_source(settings)
        except ValidationError as error:
            raise ConfigError(f"{self.file}: sources, entry {place}: {first_fault(error)}") from None

    def refusals(self, study: Study) -> list[str]:
        """Return what speaks against taking part in a study, each with how to allow it; empty if nothing does."""
        policy, why = self.policy, []
        for analysis in study.analyses:
            if policy.protocols is not None and analysis.protocol not in policy.protocols:
                why.append(
                    f"the protocol {analysis.protocol!r} is not allowed here; "
                    f"whoever owns this node can add it to [policy] protocols in {self.file}"
                )
        if policy.disclosure is not None and study.disclosure not in policy.disclosure:
            why.append(
                f"disclosure control {study.disclosure!r} is not allowed here, only {', '.join(policy.disclosure)}; "
                f"see [policy] disclosure in {self.file}"
            )
        if study.preprocessing not in policy.preprocessing:
            why.append(
                f"preprocessing {study.preprocessing!r} is not allowed here; see [policy] preprocessing in {self.file}"
            )
        if study.minimum_parties < policy.minimum_parties:
            why.append(
                f"it asks for {study.minimum_parties} contributors with rows and this node for "
                f"{policy.minimum_parties}; see [policy] minimum_parties in {self.file}"
            )
        program = study.program
        if program is not None and program.sha256 not in (self.allow_programs or ()):
            why.append(
                f"it runs a program, {program.file}, which is not allowed here; once somebody has read it, allow "
                f'just this text with allow_programs = ["{program.sha256}"] in {self.file} and restart the node'
            )
        if self.name in study.contributors and not any(
            fits(pattern, study) for pattern, _ in self.sources for fits in (_by_hash, _by_title, _by_default)
        ):
            why.append(f'this node has no data for it; add [[sources]] with study = "{study.hash[:12]}" to {self.file}')
        return why


def load_config(path: Path) -> NodeConfig:
    """Read a ``node.toml``.

    Parameters
    ----------
    path : Path
        The file, or the directory that holds it.

    Raises
    ------
    ConfigError
        It is not there, cannot be read, or a key is wrong; names file and key, and no value, since a
        value may be a password.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        with open(file, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no {file}; name a node's directory with --node or SOTTOVOCE_NODE") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if mode & 0o022:  # it says which programs may run
        raise ConfigError(f"{file} can be written by others: chmod go-w {file}")
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{file} is longer than a node.toml can be")
    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        where = re.search(r"\(at [^)]*\)", str(error))
        raise ConfigError(f"{file} is not TOML {where[0] if where else ''}".rstrip()) from None
    file = file.resolve()
    sources = _sources(file, table.pop("sources", []))
    if mode & 0o044 and _PASSWORD.search(content.decode()):
        raise ConfigError(
            f"{file} holds a password and can be read by others: chmod 600 {file}, or use url_file or url_env"
        )
    table.setdefault("state", "state")
    for key in ("consortium", "key", "certificate", "passphrase_file", "relay_ca", "state"):
        if isinstance(table.get(key), str):
            table[key] = file.parent / table[key]
    try:
        return NodeConfig.model_validate({**table, "file": file, "sources": sources})
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_fault(error)}") from None


def _sources(file: Path, entries: object) -> tuple[tuple[str, dict[str, Any]], ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{file}: sources is written as [[sources]], once for each")
    found = []
    for place, entry in enumerate(entries, 1):
        pattern = entry.pop("study", "*")
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f'{file}: sources, entry {place}: study is a title, the begin of a hash, or "*"')
        found.append((pattern, entry))
    return tuple(found)


def _by_hash(pattern: str, study: Study) -> bool:
    return len(pattern) >= _SHORTEST_PREFIX and study.hash.startswith(pattern)


def _by_title(pattern: str, study: Study) -> bool:
    return pattern == study.title


def _by_default(pattern: str, study: Study) -> bool:
    return pattern == "*"
