"""Three hospitals and a dealer, each a node of its own, from keys to a result that all have approved and can audit.

What you see is what four IT departments would type, each on its own machine; here all of them are this one. Each
``name$`` is a command at that member.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from hospitals import SOURCES, difference, write_all
from summary import summary

HERE = Path(__file__).parent
ORGANISATIONS = {
    "north": "Referral centre North",
    "city": "City hospital",
    "south": "Screening clinic South",
    "helper": "University computing centre",
}
DEALER = "helper"
SOTTOVOCE = [sys.executable, "-c", "from parties.cli import main; main()"]
READY_SECONDS = 60.0


class WalkthroughError(Exception):
    """A command did not do what it should have."""


class Walkthrough:
    """The four members' directories, in one folder, and what runs for them.

    Parameters
    ----------
    folder : Path
        Empty.
    relay : bool
        Whether the hospitals are behind firewalls and meet at a relay.
    """

    def __init__(self, folder: Path, *, relay: bool) -> None:
        self.folder = folder
        self.relay = relay
        # A port for each node, one for its monitoring, and one for the relay.
        ports = iter(free_ports(2 * len(ORGANISATIONS) + 1))
        self.listen = {name: f"127.0.0.1:{next(ports)}" for name in ORGANISATIONS}
        self.monitor = {name: f"127.0.0.1:{next(ports)}" for name in ORGANISATIONS}
        self.relay_listen = f"127.0.0.1:{next(ports)}"
        self.environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "COLUMNS": "100", "NO_COLOR": "1"}
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Do all of it."""
        heading("1. Each member makes a key, and a card to hand to the others")
        self.make_keys()
        heading("2. Each joins the cards into one file, and they compare its fingerprint by telephone")
        self.join()
        heading("3. Each says where its own data are; nobody else learns it")
        self.configure()
        heading("4. Each starts its node")
        self.start()
        heading("5. One proposes a study, and every member approves exactly this file")
        self.agree()
        heading("6. It runs, first on made-up data, then on the patients")
        self.compute()
        heading("7. Each has the result, and a log of what left its house")
        self.look_back()

    # ---- the steps ------------------------------------------------------------------------------

    def make_keys(self) -> None:
        for name, organisation in ORGANISATIONS.items():
            words = ["keygen", "--directory", name, "--name", name, "--organisation", organisation]
            words += ["--role", "dealer"] if name == DEALER else []
            words += ["--relay", f"https://localhost:{self.port_of_relay}"] if self.relay else []
            words += [] if self.relay else ["--address", self.listen[name]]
            self.command(name, *words)

    def join(self) -> None:
        cards = [f"{name}/card.toml" for name in ORGANISATIONS]
        for name in ORGANISATIONS:
            quiet = name != "north"
            self.command(
                name, "consortium", "join", "three-hospitals", *cards, "--out", f"{name}/consortium.toml", quiet=quiet
            )
        shown = {self.fingerprint(name) for name in ORGANISATIONS}
        if len(shown) != 1:
            raise WalkthroughError("the members' consortium files differ")
        print(f"all four read the same to each other: {shown.pop()}")

    def configure(self) -> None:
        write_all(self.folder)
        for name in ORGANISATIONS:
            lines = [
                f'name = "{name}"',
                'consortium = "consortium.toml"',
                'key = "key.pem"',
                'certificate = "certificate.pem"',
                'state = "state"',
                f'monitor = "{self.monitor[name]}"',
                'relay_ca = "../relay/certificate.pem"' if self.relay else f'listen = "{self.listen[name]}"',
            ]
            (self.folder / name / "node.toml").write_text("\n".join(lines) + "\n" + SOURCES.get(name, ""), "utf-8")
            if name in SOURCES:
                print(f"\n{name}/node.toml ends with\n{indented(SOURCES[name])}")

    def start(self) -> None:
        if self.relay:
            self.start_relay()
        for name in ORGANISATIONS:
            self.background(name, "dealer" if name == DEALER else "node", "--config", f"{name}/node.toml")
        deadline = time.monotonic() + READY_SECONDS
        while missing := [name for name in ORGANISATIONS if not self.is_well(name)]:
            if time.monotonic() > deadline:
                raise WalkthroughError(f"not up within {READY_SECONDS:g} s: {', '.join(missing)}")
            time.sleep(0.1)
        print("all four are up and see each other")

    def agree(self) -> None:
        tomorrow = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=1)
        text = re.sub(
            r"(?m)^deadline = \S+", f"deadline = {tomorrow.isoformat()}", (HERE / "study.toml").read_text("utf-8")
        )
        (self.folder / "north" / "study.toml").write_text(text, "utf-8")
        self.command("north", "propose", "north/study.toml", "--node", "north")
        self.hash = self.study_hash()
        self.command("city", "show", self.hash[:12], "--node", "city")
        for name in ORGANISATIONS:
            self.command(name, "approve", self.hash[:12], "--node", name)

    def compute(self) -> None:
        self.command("south", "run", self.hash[:12], "--wait", "--node", "south")

    def look_back(self) -> None:
        for name in ORGANISATIONS:
            if name != DEALER:
                self.command(name, "result", self.hash[:12], "--json", "--out", f"{name}/result.json", "--node", name)
        self.compare()
        self.command("north", "audit", "export", "north", "north/audit-of-study.jsonl", "--study", self.hash)
        print(f"which says:\n{summary(self.folder / 'north' / 'audit-of-study.jsonl')}")
        for name in ORGANISATIONS:
            witnesses = [word for other in ORGANISATIONS if other != name for word in ("--witness", other)]
            self.command(name, "audit", "verify", name, "--certificate", f"{name}/certificate.pem", *witnesses)

    def compare(self) -> None:
        """Only here, where all patients are on one machine, can the result be compared."""
        results = [json.loads((self.folder / name / "result.json").read_text("utf-8")) for name in SOURCES]
        if any(one["result"] != results[0]["result"] for one in results):
            raise WalkthroughError("the hospitals have different results")
        print(f"\n{difference(results[0]['result']['analyses'])}")

    # ---- the relay ------------------------------------------------------------------------------

    @property
    def port_of_relay(self) -> str:
        return self.relay_listen.rpartition(":")[2]

    def start_relay(self) -> None:
        """Make a certificate for the relay, as a private authority would, and start it."""
        directory = self.folder / "relay"
        directory.mkdir()
        make_web_certificate(directory)
        words = [
            "relay",
            "--listen",
            self.relay_listen,
            "--certificate",
            "relay/certificate.pem",
            "--key",
            "relay/key.pem",
        ]
        self.background("relay", *words, "--consortium", "north/consortium.toml")
        wait_for_port(int(self.port_of_relay))

    # ---- running things -------------------------------------------------------------------------

    def command(self, member: str, *words: str, quiet: bool = False) -> str:
        """Run a command in the folder, and show it with what it says."""
        if not quiet:
            print(f"\n{member}$ sottovoce {shlex.join(words)}", flush=True)
        done = subprocess.run(
            [*SOTTOVOCE, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        if done.returncode != 0:
            raise WalkthroughError(f"{member}$ sottovoce {shlex.join(words)}: exit {done.returncode}\n{done.stdout}")
        if not quiet:
            print(done.stdout.rstrip() or "(done)", flush=True)
        return done.stdout

    def background(self, member: str, *words: str) -> None:
        """Start what runs on; its output goes to a file."""
        print(f"{member}$ sottovoce {shlex.join(words)} &", flush=True)
        with (self.folder / member / "output.log").open("wb") as log:
            process = subprocess.Popen(
                [*SOTTOVOCE, *words],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(process)

    def stop(self) -> None:
        """End all that we started, the last one first."""
        for process in reversed(self.running):
            process.terminate()
        for process in reversed(self.running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()

    def is_well(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.monitor[name]}/healthz", timeout=2) as answer:
                return all(json.load(answer)["peers"].values())
        except (urllib.error.URLError, OSError):
            return False

    def fingerprint(self, name: str) -> str:
        found = re.search(
            r"\b[A-Z2-7]{4}(-[A-Z2-7]{4}){4}\b", (self.folder / name / "consortium.toml").read_text("utf-8")
        )
        if found is None:
            raise WalkthroughError(f"{name}'s consortium file shows no fingerprint")
        return found[0]

    def study_hash(self) -> str:
        """The only study that north has."""
        (study,) = (self.folder / "north" / "state" / "studies").iterdir()
        return study.name


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise WalkthroughError(f"nothing answers at port {port}")
        time.sleep(0.05)


def make_web_certificate(directory: Path) -> None:
    """Make a certificate for ``localhost``, which in earnest is the work of a (private) authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    # Python 3.13 takes an authority's certificate only if it says that it is one.
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    signs = x509.KeyUsage(
        **dict.fromkeys((*others, "encipher_only", "decipher_only", "crl_sign"), False),
        digital_signature=True,
        key_cert_sign=True,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    handle = os.open(directory / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as file:
        file.write(pem)
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def heading(text: str) -> None:
    print(f"\n{text}\n{'─' * len(text)}", flush=True)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


@contextlib.contextmanager
def folder(kept: Path | None) -> Iterator[Path]:
    """Lend a folder: a new one of the reader's choice, which stays, or one that is removed in the end."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="three-hospitals-") as name:
            yield Path(name)
    else:
        kept.mkdir(parents=True)
        yield kept


def main() -> int:
    """Run the example; 0 if all went well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--relay", action="store_true", help="the hospitals are behind firewalls and meet at a relay")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave the members' directories there")
    given = parser.parse_args()
    with folder(given.keep) as where:
        show = Walkthrough(where.resolve(), relay=given.relay)
        try:
            show.run()
        except WalkthroughError as error:
            print(f"\n{error}", file=sys.stderr)
            for name in (*ORGANISATIONS, "relay"):
                log = where / name / "output.log"
                if log.exists() and (said := log.read_text("utf-8", "replace").strip()):
                    print(f"\n{name} said:\n{indented(said[-3000:])}", file=sys.stderr)
            return 1
        finally:
            show.stop()
    print("\nAll nodes have ended, and nothing is left running.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
