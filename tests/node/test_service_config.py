"""``node.toml`` is read strictly; what is wrong is told in a line with file and key, never with the value."""

import hashlib
from pathlib import Path

import pytest

from parties.governance.studies import study_of
from parties.node.config import ConfigError, NodeConfig, load_config
from tests.node.world import study_fields

BASE = 'name = "north"\nconsortium = "consortium.toml"\nkey = "key.pem"\ncertificate = "certificate.pem"\n'
CSV = '[[sources]]\nstudy = "{}"\nkind = "csv"\npath = "{}"\n'
STUDY = study_of(study_fields())


def read(directory: Path, more: str = "", text: str = BASE) -> NodeConfig:
    (directory / "node.toml").write_text(text + more)
    (directory / "node.toml").chmod(0o600)
    return load_config(directory)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, 'passphrase_file = "/run/secrets/pass"\n')
    assert config.key == tmp_path / "key.pem"
    assert config.state == tmp_path / "state"
    assert str(config.passphrase_file) == "/run/secrets/pass"
    assert load_config(tmp_path / "node.toml") == config


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nam = 1\n", "nam: there is no such key"),
        ('listen = "nowhere"\n', "listen: an address is host:port"),
        ("[limits]\ncores = 0\n", r"limits\W+cores: Input should be greater than or equal to 1"),
        ('allow_programs = ["abc"]\n', "allow_programs: it is false, or a list of SHA-256"),
        ("allow_programs = true\n", "allow_programs: it is false, or a list of SHA-256"),
        ("[policy]\nminimum_parties = 1\n", r"policy\W+minimum_parties: Input should be greater"),
        ("[[sources]]\nstudy = 3\n", "sources, entry 1: study is a title"),
        ("sources = 3\n", r"sources is written as \[\[sources\]\]"),
        ("= 3\n", r"is not TOML \(at line 5, column 1\)"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "node.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="certificate: is missing"):
        read(tmp_path, text=BASE.replace('certificate = "certificate.pem"\n', ""))
    with pytest.raises(ConfigError, match=r"there is no .*elsewhere/node.toml; name a node's directory"):
        load_config(tmp_path / "elsewhere" / "node.toml")


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "node.toml").chmod(0o666)
    with pytest.raises(ConfigError, match="can be written by others: chmod go-w"):
        load_config(tmp_path)


def test_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name: a name has 1 to 32"):
        read(tmp_path, text=BASE.replace("north", "../north"))


def test_secrets_never_show(tmp_path: Path) -> None:
    secret = "hunter2"
    sql = f'[[sources]]\nkind = "sql"\nurl = "postgresql://me:{secret}@db/x"\nquery = "SELECT 1"\n'
    config = read(tmp_path, f'proxy = "http://me:{secret}@proxy:3128"\n' + sql)
    assert secret not in repr(config)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, sql + f'password = "{secret}"\n').check_sources()
    assert secret not in str(caught.value)
    assert "sources, entry 1" in str(caught.value)


def test_the_most_specific_source_is_taken(tmp_path: Path) -> None:
    text = CSV.format("*", "all.csv") + CSV.format("Age", "age.csv") + CSV.format(STUDY.hash[:12], "hash.csv")

    def path_of(config: NodeConfig) -> str:
        source = config.source_for(STUDY)
        assert source is not None
        return str(source.model_dump()["path"])

    assert path_of(read(tmp_path, text)) == "hash.csv"
    assert path_of(read(tmp_path, text.replace(STUDY.hash[:12], "0" * 12))) == "age.csv"
    assert path_of(read(tmp_path, CSV.format("Other", "x.csv") + CSV.format("*", "all.csv"))) == "all.csv"
    assert read(tmp_path, CSV.format("Other", "x.csv")).source_for(STUDY) is None
    assert read(tmp_path, CSV.format(STUDY.hash[:3], "x.csv")).source_for(STUDY) is None  # too short to mean it


def test_policy_refuses_with_a_remedy(tmp_path: Path) -> None:
    source = CSV.format("*", "data.csv")
    assert read(tmp_path, source).refusals(STUDY) == []
    for policy, complaint in (
        ('protocols = ["sum"]', "the protocol 'mean' is not allowed here"),
        ('disclosure = ["vantage6"]', "disclosure control 'none' is not allowed here, only vantage6"),
        ('preprocessing = ["dealer"]', "preprocessing 'prss' is not allowed here"),
        ("minimum_parties = 3", "asks for 2 contributors with rows and this node for 3"),
    ):
        (refusal,) = read(tmp_path, f"{source}[policy]\n{policy}\n").refusals(STUDY)
        assert complaint in refusal
        assert "node.toml" in refusal
    (refusal,) = read(tmp_path).refusals(STUDY)
    assert f'add [[sources]] with study = "{STUDY.hash[:12]}"' in refusal


def test_a_program_is_allowed_by_its_hash_alone(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    study = study_of({**study_fields(), "analyses": [], "program": {"file": "study.py", "sha256": sha256}})
    source = CSV.format("*", "data.csv")
    (refusal,) = read(tmp_path, source).refusals(study)
    assert f'allow_programs = ["{sha256}"]' in refusal
    assert len(read(tmp_path, f'allow_programs = ["{"0" * 64}"]\n{source}').refusals(study)) == 1
    assert read(tmp_path, f'allow_programs = ["{sha256}"]\n{source}').refusals(study) == []


@pytest.mark.parametrize(
    "more",
    [
        'proxy = "http://user:geheim@proxy:3128"\n',
        '[[sources]]\nstudy = "*"\nkind = "sql"\nurl = "postgresql://u:geheim@db/x"\nquery = "select 1"\n',
    ],
)
def test_a_file_with_a_password_is_private(tmp_path: Path, more: str) -> None:
    (tmp_path / "node.toml").write_text(BASE + more)
    (tmp_path / "node.toml").chmod(0o644)
    with pytest.raises(ConfigError, match="holds a password") as caught:
        load_config(tmp_path)
    assert "geheim" not in str(caught.value)
    (tmp_path / "node.toml").chmod(0o600)
    load_config(tmp_path)
