"""A real PostgreSQL server for the tests of a module, from Debian's package; where there is none, tests are skipped."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "31337-never-shown"
_WAIT_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """Where a server listens, and what it lets in."""

    port: int
    directory: Path
    version: str

    def url(self, user: str = "postgres", password: str = PASSWORD, database: str = "postgres") -> str:
        """Over TCP, with a password."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def socket_url(self) -> str:
        """Over a Unix socket, with a password."""
        return f"postgresql+psycopg://postgres:{PASSWORD}@/postgres?host={self.directory}&port={self.port}"


def _programs() -> Path | None:
    """The newest installed server's programs."""
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(installed, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    programs = _programs()
    if programs is None or not (programs / "postgres").exists():
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    directory = Path(tempfile.mkdtemp(prefix="sottovoce-pg-"))  # a short path: a Unix socket goes into it
    secret, data = directory / "password", directory / "data"
    secret.write_text(PASSWORD)
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = _somebody_else()
        for path in (directory, secret):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        account = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(directory), "TZ": "UTC"}
    login = ["-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(secret)]
    server = None
    try:
        made = subprocess.run(
            [programs / "initdb", "-N", "-D", data, "-E", "UTF8", *login],
            env=environment,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            **account,
        )
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot make a database here: {made.stderr.strip()[-200:]}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", directory, "-F"],
                env=environment,
                cwd=directory,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **account,
            )
        _wait(server, port, directory / "log")
        version = (data / "PG_VERSION").read_text().strip()
        yield Server(port, directory, version)
    finally:
        if server is not None:
            server.send_signal(2)  # "fast shutdown": do not wait for clients
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _somebody_else() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        if server.poll() is not None:
            pytest.skip(f"PostgreSQL does not start here: {log.read_text(errors='replace')[-300:]}")
        try:
            psycopg.connect(
                host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname="postgres", connect_timeout=5
            ).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
