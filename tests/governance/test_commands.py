"""The commands, from keys to a joined consortium and a checked log, as a person types them."""

import datetime
import json
import re
import stat
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mpc.errors import SottovoceError
from parties.commands import audit, keys
from parties.governance.audit import AuditLog, read_entries, verify
from parties.governance.cards import make_card, read_card, write_card
from parties.governance.consortium import Consortium, join
from parties.governance.keys import expiry, generate, key_id_of, load, load_certificate


def sottovoce(*words: object, given: str | None = None) -> Result:
    app = typer.Typer()
    keys.register(app)
    audit.register(app)
    return CliRunner().invoke(app, [str(word) for word in words], input=given)


def good(*words: object, given: str | None = None) -> str:
    result = sottovoce(*words, given=given)
    assert (result.exit_code, result.exception) == (0, None), result.output
    return result.output


def refused(*words: object, given: str | None = None) -> str:
    """What the error says: ``main`` prints it in a line."""
    result = sottovoce(*words, given=given)
    assert result.exit_code != 0
    if isinstance(result.exception, SottovoceError):
        assert str(result.exception).isprintable()
        return str(result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output


def keygen(tmp_path: Path, name: str, *more: str) -> Path:
    directory = tmp_path / name
    good("keygen", "--directory", directory, "--name", name, "--organisation", f"Klinik {name}", *more)
    return directory


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folders = {name: keygen(tmp_path, name, "--address", f"{name}.example:8443") for name in ("north", "city")}
    folders["helper"] = keygen(tmp_path, "helper", "--role", "dealer", "--relay", "https://relay.example")
    folders["consortium"] = tmp_path / "consortium.toml"
    cards = [folders[name] / "card.toml" for name in ("north", "city", "helper")]
    good("consortium", "join", "heart", *cards, "--out", folders["consortium"])
    return folders


def test_keygen_writes_key_certificate_and_card(tmp_path: Path) -> None:
    out = good(
        "keygen",
        "--directory",
        tmp_path / "new" / "north",
        "--name",
        "north",
        "--organisation",
        "Klinikum Nord",
        "--address",
        "mpc.nord.example:8443",
        "--relay",
        "https://relay.example:443",
    )
    directory = tmp_path / "new" / "north"
    key = load(directory / "key.pem", directory / "certificate.pem")
    card = read_card(directory / "card.toml")
    assert key.key_id in out
    assert (card.name, card.organisation, card.role) == ("north", "Klinikum Nord", "party")
    assert (card.address, card.relay) == ("mpc.nord.example:8443", "https://relay.example:443")
    assert card.certificate_der == key.certificate
    assert stat.S_IMODE((directory / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert "PRIVATE" not in out


def test_keygen_refuses_before_it_writes(tmp_path: Path) -> None:
    assert "a name is" in refused("keygen", "--directory", tmp_path, "--name", "North", "--organisation", "N")
    assert "--name and --organisation" in refused("keygen", "--directory", tmp_path, "--name", "north")
    assert "host:port" in refused(
        "keygen", "--directory", tmp_path, "--name", "n", "--organisation", "N", "--address", "nowhere"
    )
    for name in ("", "n" * 100, "n\x1b"):
        assert "name" in refused("keygen", "--directory", tmp_path, "--name", name, "--organisation", "N")
    assert list(tmp_path.iterdir()) == []
    keygen(tmp_path, "north")
    before = (tmp_path / "north" / "key.pem").read_bytes()
    again = refused("keygen", "--directory", tmp_path / "north", "--name", "north", "--organisation", "N")
    assert "exists already" in again
    assert (tmp_path / "north" / "key.pem").read_bytes() == before
    assert read_card(tmp_path / "north" / "card.toml").organisation == "Klinik north"


def test_a_passphrase_is_asked_twice_and_never_shown(tmp_path: Path) -> None:
    words = ["keygen", "--directory", tmp_path, "--name", "n", "--organisation", "N", "--passphrase"]
    refused(*words, given="one secret\nanother secret\n")
    assert not (tmp_path / "key.pem").exists()
    out = good(*words, given="my secret\nmy secret\n")
    assert "my secret" not in out
    assert load(tmp_path / "key.pem", tmp_path / "certificate.pem", "my secret").name == "n"
    assert "passphrase is wrong" in refused("keygen", "--renew", "--directory", tmp_path, "--passphrase", given="x\n")
    good("keygen", "--renew", "--directory", tmp_path, "--passphrase", given="my secret\n")
    load(tmp_path / "key.pem", tmp_path / "certificate.pem", "my secret")


def test_a_passphrase_comes_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "pass"
    file.write_text("my secret\n")
    words = ["keygen", "--directory", tmp_path / "n", "--name", "n", "--organisation", "N", "--passphrase-file", file]
    assert "chmod 600" in refused(*words)
    file.chmod(0o600)
    good(*words)
    load(tmp_path / "n" / "key.pem", tmp_path / "n" / "certificate.pem", "my secret")
    assert "not both" in refused(*words, "--passphrase")


def test_join_show_and_compare(files: dict[str, Path], tmp_path: Path) -> None:
    consortium = Consortium.load(files["consortium"])
    assert consortium.names == ("city", "helper", "north")
    shown = good("consortium", "show", files["consortium"])
    for part in (
        "heart",
        "Klinik north",
        "dealer",
        "city.example:8443",
        "https://relay.example",
        consortium.fingerprint,
    ):
        assert part in " ".join(shown.split()) or part in shown.replace("\n", "")
    copy = tmp_path / "copy.toml"
    copy.write_text("# another comment\n" + files["consortium"].read_text())
    assert consortium.fingerprint in good("consortium", "compare", files["consortium"], copy)
    copy.write_text(copy.read_text().replace("city.example:8443", "city.example:9443"))
    result = sottovoce("consortium", "compare", files["consortium"], copy)
    assert result.exit_code == 1
    assert result.output == "city: address is 'city.example:8443' in the first, 'city.example:9443' in the second\n"


def test_join_refuses_what_is_no_consortium(files: dict[str, Path], tmp_path: Path) -> None:
    card, other = files["north"] / "card.toml", files["city"] / "card.toml"
    assert "at least two" in refused("consortium", "join", "heart", card, "--out", tmp_path / "x.toml")
    assert "two members" in refused("consortium", "join", "heart", card, card, "--out", tmp_path / "x.toml")
    assert "consortium's name" in refused("consortium", "join", "Heart!", card, other, "--out", tmp_path / "x.toml")
    assert "exists already" in refused("consortium", "join", "heart", card, other, "--out", files["consortium"])
    card.write_text(card.read_text().replace("Klinik north", "Klinik South"))
    assert "altered" in refused("consortium", "join", "heart", card, other, "--out", tmp_path / "x.toml")
    assert not (tmp_path / "x.toml").exists()


def test_renewal_from_one_end_to_the_other(files: dict[str, Path]) -> None:
    old = load_certificate(files["north"] / "certificate.pem")
    key = (files["north"] / "key.pem").read_bytes()
    out = good("keygen", "--renew", "--directory", files["north"])
    assert "consortium renew" in out
    new = load_certificate(files["north"] / "certificate.pem")
    assert new != old
    assert (files["north"] / "key.pem").read_bytes() == key
    assert load_certificate(files["north"] / "certificate.previous.pem") == old
    card = read_card(files["north"] / "card.toml")
    assert (card.name, card.organisation, card.address) == ("north", "Klinik north", "north.example:8443")
    good("consortium", "renew", files["consortium"], files["north"] / "card.toml")
    assert Consortium.load(files["consortium"]).member("north").certificates == (new, old)
    good("consortium", "renew", files["consortium"], "--prune")
    assert Consortium.load(files["consortium"]).member("north").certificates == (new,)
    assert "CARD, or --prune" in refused("consortium", "renew", files["consortium"])


def test_renewal_can_move_a_node(files: dict[str, Path]) -> None:
    good("keygen", "--renew", "--directory", files["north"], "--address", "new.example:1")
    assert read_card(files["north"] / "card.toml").address == "new.example:1"


def test_an_expired_certificate_is_shown_and_renewed(tmp_path: Path) -> None:
    old = generate("north", lifetime=datetime.timedelta(minutes=-30))
    old.save(tmp_path)
    card = make_card(old, name="north", organisation="N")
    write_card(card, tmp_path / "card.toml")
    other = make_card(generate("city"), name="city", organisation="C")
    join([card, other], "heart").save(tmp_path / "c.toml")
    assert re.search(r"\.\.\. expired on 20..-..-..", good("consortium", "show", tmp_path / "c.toml"))
    good("keygen", "--renew", "--directory", tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    assert expiry(load_certificate(tmp_path / "certificate.pem")).fault(now) is None


def test_revocation_and_a_new_key(files: dict[str, Path], tmp_path: Path) -> None:
    before = Consortium.load(files["consortium"])
    out = good("consortium", "revoke", files["consortium"], "north", "--reason", "stolen laptop")
    after = Consortium.load(files["consortium"])
    assert after.fingerprint in out
    assert after.names == ("city", "helper")
    assert "stolen laptop" in good("consortium", "show", files["consortium"])
    assert "revoked" in refused("consortium", "add", files["consortium"], files["north"] / "card.toml")
    fresh = keygen(tmp_path / "fresh", "north")
    good("consortium", "add", files["consortium"], fresh / "card.toml")
    assert Consortium.load(files["consortium"]).member("north").key_id != before.member("north").key_id
    assert "no member" in refused("consortium", "revoke", files["consortium"], "west", "--reason", "x")
    assert "reason" in refused("consortium", "revoke", files["consortium"], "city", "--reason", "\x1b[2J")


def test_what_members_say_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Brackets are markup for rich; a name may hold them."""
    for name, organisation in (("north", "[red]N[/red]"), ("city", "C")):
        good("keygen", "--directory", tmp_path / name, "--name", name, "--organisation", organisation)
    cards = [tmp_path / name / "card.toml" for name in ("north", "city")]
    good("consortium", "join", "heart", *cards, "--out", tmp_path / "c.toml")
    assert "[red]N[/red]" in good("consortium", "show", tmp_path / "c.toml")


# ---- audit ----------------------------------------------------------------------------------------


@pytest.fixture
def log(files: dict[str, Path]) -> Path:
    north = load(files["north"] / "key.pem", files["north"] / "certificate.pem")
    (files["north"] / "state").mkdir()
    path = files["north"] / "state" / "audit.jsonl"
    with AuditLog(path, north, lambda: datetime.datetime(2030, 6, 1, tzinfo=datetime.UTC), "north") as log:
        log.append("started")
        log.append("opened", study="ab" * 32, what="mean", to=["north"])
    return path


def test_audit_verify(files: dict[str, Path], log: Path) -> None:
    out = good("audit", "verify", files["north"])
    assert "holds: 3 entries" in out
    assert "--certificate" in out
    pinned = good("audit", "verify", log, "--certificate", files["north"] / "certificate.pem")
    assert "--certificate" not in pinned
    wrong = sottovoce("audit", "verify", log, "--certificate", files["city"] / "certificate.pem")
    assert wrong.exit_code == 1
    assert "log of another key" in wrong.output
    log.write_bytes(log.read_bytes().replace(b'"mean"', b'"sums"'))
    altered = sottovoce("audit", "verify", files["north"])
    assert altered.exit_code == 1
    assert altered.output == "line 3: the signature does not fit\n"


def test_audit_verify_with_a_witness(files: dict[str, Path], log: Path, tmp_path: Path) -> None:
    city = load(files["city"] / "key.pem", files["city"] / "certificate.pem")
    north = load_certificate(files["north"] / "certificate.pem")
    last = list(read_entries(log))[-1]
    with AuditLog(tmp_path / "audit.jsonl", city, lambda: datetime.datetime.now(datetime.UTC), "city") as witness:
        witness.witness(member="north", key_id=key_id_of(north), number=last.number, entry_hash=last.hash)
    assert "as 1 other log saw it" in good("audit", "verify", log, "--witness", tmp_path)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    cut = sottovoce("audit", "verify", log, "--witness", tmp_path)
    assert cut.exit_code == 1
    assert "city saw entry 2, which is not there" in cut.output


def test_audit_show_and_export(files: dict[str, Path], log: Path, tmp_path: Path) -> None:
    shown = good("audit", "show", files["north"])
    assert re.search(r"2 +2030-06-01T00:00:00Z +opened", shown)
    assert "genesis" in shown
    one = good("audit", "show", log, "--study", "abab")
    assert "opened" in one
    assert "genesis" not in one
    assert "genesis" not in good("audit", "show", log, "--last", "1")
    assert "opened" not in good("audit", "show", log, "--since", "2031-01-01")
    assert "3 entries" in good("audit", "export", log, tmp_path / "out.jsonl")
    assert verify(tmp_path / "out.jsonl") == []
    good("audit", "export", log, tmp_path / "out.csv", "--study", "ab" * 32)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2
    assert "exists already" in refused("audit", "export", log, tmp_path / "out.csv")
    assert "holds no audit log" in refused("audit", "show", tmp_path)
    assert "no such file" in refused("audit", "verify", tmp_path / "none.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[2])["event"] == "opened"
