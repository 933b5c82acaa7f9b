"""Study files: what they may say, what is hashed, and what whoever approves is told."""

import datetime
import hashlib
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.governance.canonical import canonical
from parties.governance.catalogue import disclosure_of
from parties.governance.errors import StudyError
from parties.governance.studies import (
    Study,
    check_program,
    differences,
    parse_study,
    read_study,
    study_of,
)
from protocols.release.disclosure import Disclosure
from tests.governance.world import STUDY, World

PROGRAM = "async def study(party, table):\n\treturn None\r\n"
PRESETS = ("none", "datashield", "vantage6", "opensafely", "cms", "ons")


def with_program(text: str = PROGRAM, file: str = "study.py") -> str:
    head = STUDY[: STUDY.index("[[analyses]]")]
    return f'{head}[program]\nfile = "{file}"\nsha256 = "{hashlib.sha256(text.encode()).hexdigest()}"\n'


def changed(*pairs: tuple[str, str]) -> str:
    text = STUDY
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


# ---- what is hashed -------------------------------------------------------------------------------


def test_a_frozen_hash(study: Study) -> None:
    """Approvals rest on it. Whoever changes it makes a new format."""
    assert study.hash == "4c7bdefc8a94536310c9c383bc0d48c66089ca75ab8e0b73e119b45068252d29"
    assert len(canonical(study.plain())) == 1329


def test_ranks_and_members(study: Study) -> None:
    assert study.parties == ("north", "city", "south")
    assert study.members == ("north", "city", "south", "helper")
    guest = parse_study(changed(('recipients = ["north", "city"]', 'recipients = ["registry", "city"]')))
    assert guest.parties == ("north", "city", "south", "registry")
    assert guest.members[-1] == "helper"


def test_the_hash_does_not_depend_on_how_it_is_written(study: Study) -> None:
    again = changed(
        ("lower = 0\n", "lower = -0.0 # a comment\n"),
        ("18:00:00+01:00", "17:00:00Z"),
        ("l2 = 1", "l2 = 1.0"),
        (
            "time_limit_seconds = 600",
            "time_limit_seconds = 600\nattempts = 3\nsecurity = 'semi-honest'",
        ),
    )
    assert parse_study(again) == study
    assert parse_study(again).hash == study.hash
    assert parse_study(again.replace("\n", "\r\n").replace("\r\nSecond", "\nSecond")).hash == study.hash


def test_what_is_dumped_is_the_study(study: Study) -> None:
    assert study_of(study.plain()) == study
    assert study_of(study.plain()).hash == study.hash


ALTERED = [
    ('title = "Readmission', 'title = "Readmissions'),
    ("Second line", "Second  line"),
    ('consortium = "heart"', 'consortium = "lung"'),
    ('["north", "city", "south"]', '["city", "north", "south"]'),
    ('recipients = ["north", "city"]', 'recipients = ["north"]'),
    ('dealer = "helper"', 'dealer = "other"'),
    ("vantage6", "datashield"),
    ("minimum_parties = 3", "minimum_parties = 2"),
    ("18:00:00+01:00", "18:00:01+01:00"),
    ("time_limit_seconds = 600", "time_limit_seconds = 601"),
    ("time_limit_seconds = 600", "resume_seconds = 0"),
    ("time_limit_seconds = 600", "time_limit_seconds = 600\nattempts = 4"),
    ("time_limit_seconds = 600", "time_limit_seconds = 600\ndry_run = false"),
    ('name = "ldl"\ntype', 'name = "LDL"\ntype'),
    ('unit = "years"', 'unit = "y"'),
    ("upper = 110", "upper = 111"),
    ('missing = "drop"', 'missing = "refuse"'),
    ('"female", "male"', '"male", "female"'),
    ('name = "sums"', 'name = "sum"'),
    ('protocol = "mean"', 'protocol = "mean"\ncount = "secret"'),
    ("l2 = 1", "l2 = 2"),
    ("l2 = 1", "l2 = 1\nsteps = 10"),
]


@pytest.mark.parametrize(("old", "new"), ALTERED)
def test_every_change_changes_the_hash_and_is_named(study: Study, old: str, new: str) -> None:
    text = changed((old, new))
    if new.startswith('name = "LDL"'):
        text = text.replace('"ldl"', '"LDL"')
    other = parse_study(text)
    assert other.hash != study.hash
    found = differences(study, other)
    assert found
    assert all(sentence.isprintable() for sentence in found)
    assert differences(other, other) == []


def test_differences_name_the_place(study: Study) -> None:
    other = parse_study(changed(("upper = 110", "upper = 120"), ("l2 = 1", "l2 = 0.5")))
    assert differences(study, other) == [
        "analyses model.l2 is 1.0 in the first, 0.5 in the second",
        "columns age.upper is 110.0 in the first, 120.0 in the second",
    ]
    fewer = parse_study(changed(('recipients = ["north", "city"]', 'recipients = ["north"]')))
    assert differences(study, fewer) == ["recipients has 2 entries in the first, 1 in the second"]


@settings(max_examples=40)
@given(st.data())
def test_a_dump_with_any_leaf_changed_is_another_study_or_none(data: st.DataObject) -> None:
    original = parse_study(STUDY)
    plain = original.plain()
    leaves = list(_leaves(plain))
    container, key = data.draw(st.sampled_from(leaves))
    old = container[key]
    container[key] = data.draw(
        st.sampled_from([None, True, 0, 1, -1, 2**40, 0.5, "", "x", "north", "\x1b", "prss", [], {}, old])
    )
    try:
        other = study_of(plain)
    except StudyError as error:
        message = str(error)
    else:
        assert (other.hash == original.hash) == (differences(original, other) == [])
        return
    assert message.isprintable()


def _leaves(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(pairs):
        yield value, key
        if isinstance(item, dict | list):
            yield from _leaves(item)


# ---- what a file may say --------------------------------------------------------------------------

BAD: list[tuple[tuple[str, str], str]] = [
    (("format = 1", "format = 2"), "format: "),
    (("format = 1", "format = true"), "format: "),
    (("format = 1", 'format = "1"'), "format: "),
    (("format = 1\n", ""), "format: is missing"),
    (("format = 1", "format = 1\nleader = 'north'"), "leader: there is no such key"),
    (('title = "Readmission after heart failure"', 'title = ""'), "title: takes 1 to 120"),
    (('title = "Readmission after heart failure"', f'title = "{"x" * 121}"'), "title: takes 1 to 120"),
    (('title = "Readmission', 'title = "\\u001b]0;owned\\u0007'), r"title: .* \(U\+001B\)"),
    (('title = "Readmission', 'title = "a\\nb'), r"title: .* \(U\+000A\)"),
    (('title = "Readmission', 'title = "\\u202Etxt'), r"title: .* \(U\+202E\)"),
    (('title = "Readmission', 'title = "\\u200Btxt'), r"title: .* \(U\+200B\)"),
    (('title = "Readmission', 'title = "\\uFEFFtxt'), r"title: .* \(U\+FEFF\)"),
    (('title = "Readmission', 'title = "\\U000E0041txt'), r"title: .* \(U\+E0041\)"),
    (('title = "Readmission', 'title = "\\u0061\\u0308'), "title: .*decomposed"),
    (('title = "Readmission after heart failure"', 'title = "00c86ae26f59"'), "title: must not look like the begin"),
    (('title = "Readmission after heart failure"', 'title = "CAFE"'), "title: must not look like the begin"),
    (('title = "Readmission', 'title = " Readmission'), "title: begins or ends with a space"),
    (("Second line", "\\u0007"), r"purpose: .* \(U\+0007\)"),
    (("Second line", "\\u2028"), r"purpose: .* \(U\+2028\)"),
    (("Second line", "\\r"), r"purpose: .* \(U\+000D\)"),
    (("Second line", "x" * 2000), "purpose: takes 1 to 2000"),
    (('consortium = "heart"', 'consortium = "Heart"'), "consortium: a name is"),
    (('["north", "city", "south"]', '["north"]'), "contributors: "),
    (('["north", "city", "south"]', "[]"), "contributors: "),
    (('["north", "city", "south"]', '["north", "north", "city"]'), "contributors names a member twice"),
    (('["north", "city", "south"]', '["n\\u043Erth", "city", "south"]'), "contributors, entry 1: a name is"),
    (('["north", "city", "south"]', '["../../etc", "city", "south"]'), "contributors, entry 1: a name is"),
    (('["north", "city", "south"]', '"north"'), "contributors: "),
    (('["north", "city", "south"]', str([f"n{k}" for k in range(33)])), "contributors: "),
    (('recipients = ["north", "city"]', "recipients = []"), "recipients: "),
    (('recipients = ["north", "city"]', 'recipients = ["city", "city"]'), "recipients names a member twice"),
    (('recipients = ["north", "city"]', 'recipients = ["helper"]'), "helper cannot be the dealer and take part"),
    (('dealer = "helper"', 'dealer = "north"'), "north cannot be the dealer and take part"),
    (('dealer = "helper"\n', ""), "exactly when preprocessing is 'dealer'"),
    (('preprocessing = "dealer"', 'preprocessing = "prss"'), "exactly when preprocessing is 'dealer'"),
    (('preprocessing = "dealer"', 'preprocessing = "ot"'), "exactly when preprocessing is 'dealer'"),
    (('preprocessing = "dealer"', 'preprocessing = "magic"'), "preprocessing: "),
    (('preprocessing = "dealer"\n', ""), "preprocessing: is missing"),
    (('disclosure = "vantage6"', 'disclosure = "secret"'), "disclosure: "),
    (('disclosure = "vantage6"\n', ""), "disclosure: is missing"),
    (("minimum_parties = 3", "minimum_parties = 4"), "above the number of contributors, 3"),
    (("minimum_parties = 3", "minimum_parties = 1"), "minimum_parties: "),
    (("minimum_parties = 3", "minimum_parties = true"), "minimum_parties: "),
    (("minimum_parties = 3", "minimum_parties = 2.0"), "minimum_parties: "),
    (("minimum_parties = 3", "security = 'malicious'"), "does not run with security 'malicious'; sums, means "),
    (("minimum_parties = 3", "security = 'covert'"), "security: 'covert' is not available"),
    (("minimum_parties = 3", "security = '\\u001b[2J'".replace("'", '"')), r"security: '\\x1b\[2J' is not"),
    (("2030-12-31T18:00:00+01:00", "2030-12-31"), "deadline takes a date, a time and an offset"),
    (("2030-12-31T18:00:00+01:00", "2030-12-31T18:00:00"), "deadline takes a date, a time and an offset"),
    (("2030-12-31T18:00:00+01:00", "1999-12-31T18:00:00Z"), "deadline is not between"),
    (("2030-12-31T18:00:00+01:00", '"tomorrow"'), "deadline: a time is written in UTC"),
    (("2030-12-31T18:00:00+01:00", "5"), "deadline: "),
    (("time_limit_seconds = 600", "time_limit_seconds = 0"), "time_limit_seconds: "),
    (("time_limit_seconds = 600", "time_limit_seconds = 99999999999"), "time_limit_seconds: "),
    (("time_limit_seconds = 600", "resume_seconds = 3601"), "resume_seconds: "),
    (("time_limit_seconds = 600", "resume_seconds = -1"), "resume_seconds: "),
    (("time_limit_seconds = 600", "attempts = 11"), "attempts: "),
    (("time_limit_seconds = 600", "attempts = 0"), "attempts: "),
    (("time_limit_seconds = 600", "dry_run = 1"), "dry_run: "),
    (('name = "age"', 'name = ""'), "columns, entry 1, name: a column's name"),
    (('name = "age"', 'name = "1age"'), "columns, entry 1, name: a column's name"),
    (('name = "age"', 'name = "age "'), "columns, entry 1, name: a column's name"),
    (('name = "age"', 'name = "a/ge"'), "columns, entry 1, name: a column's name"),
    (('name = "age"', 'name = "\\u0430ge"'), "columns, entry 1, name: a column's name"),
    (('name = "age"', f'name = "{"a" * 65}"'), "columns, entry 1, name: a column's name"),
    (('name = "ldl"\ntype', 'name = "age"\ntype'), "two columns are named age"),
    (('name = "ldl"\ntype', 'name = "AGE"\ntype'), "two columns are named AGE"),
    (('type = "integer"', 'type = "text"'), "columns, entry 1, type: "),
    (("lower = 18\n", ""), "column age: lower and upper are missing"),
    (("lower = 18", "lower = 18.5"), "column age: lower is not a whole number"),
    (("lower = 18", "lower = 110"), "column age: lower is not below upper"),
    (("lower = 18", "lower = nan"), "lower is NaN or infinite"),
    (("lower = 18", "lower = -inf"), "lower is NaN or infinite"),
    (("lower = 18", "lower = -1e16"), "column age: bounds go to 1e\\+15"),
    (("lower = 18", "lower = 99999999999999999999999"), "integer of more than 64 bits"),
    (("lower = 18", "lower = true"), "columns, entry 1, lower: "),
    (("lower = 18", 'lower = "18"'), "columns, entry 1, lower: "),
    (("lower = 18", "lower = 2030-01-01"), "lower takes a date"),
    (("lower = 18", 'lower = 18\ncategories = ["a", "b"]'), "column age: only a category takes categories"),
    (('categories = ["female", "male"]', 'categories = ["female"]'), "column sex: a category takes categories"),
    (('categories = ["female", "male"]', 'categories = ["a", "A"]'), "column sex: two categories are the same"),
    (('categories = ["female", "male"]', 'categories = ["a", ""]'), "categories, entry 2: takes 1 to 120"),
    (('categories = ["female", "male"]', 'categories = ["a", "b\\u001b"]'), r"categories, entry 2: .*U\+001B"),
    (('categories = ["female", "male"]', 'categories = ["a", 1]'), "categories, entry 2: "),
    (('categories = ["female", "male"]', "categories = [\n" + '"a",\n' * 300 + "]"), "categories: "),
    (('categories = ["female", "male"]', "lower = 0\nupper = 1"), "category takes categories"),
    (('type = "boolean"', 'type = "boolean"\nlower = 0'), "column readmitted: a boolean takes no bounds"),
    (('unit = "years"', 'unit = "\\u001b[31m"'), r"unit: .*U\+001B"),
    (('missing = "drop"', 'missing = "zero"'), "columns, entry 2, missing: "),
    (('protocol = "sum"', 'protocol = "os.system"'), "analyses, entry 1: .*'sum', 'mean'"),
    (('protocol = "sum"', 'protocol = "__import__"'), "analyses, entry 1: "),
    (('protocol = "sum"', 'protocol = "\\u001b"'), "analyses, entry 1: "),
    (('protocol = "sum"', "protocol = 1"), "analyses, entry 1: "),
    (('protocol = "sum"', ""), "analyses, entry 1: "),
    (('protocol = "sum"', 'protocol = "sum"\nto = [0]'), "to: there is no such key"),
    (('name = "sums"', 'name = "means"'), "two analyses have the same name"),
    (('name = "sums"', 'name = "MEANS"'), "two analyses have the same name"),
    (('name = "sums"', 'name = "a/b"'), "name: a name of an analysis"),
    (('name = "sums"', 'name = "a.2"'), "name: a name of an analysis"),
    (('name = "sums"', 'name = "Dry Run"'), "name: no analysis is named 'dry run'"),
    (('name = "sums"', f'name = "{"a" * 41}"'), "name: a name of an analysis"),
    (('["age", "readmitted"]', "[]"), "columns: "),
    (('["age", "readmitted"]', '["age", "age"]'), "analysis sums names a column twice"),
    (('["age", "readmitted"]', '["age", "weight"]'), "analysis sums names column weight, which is not among"),
    (('["age", "readmitted"]', '["age", "sex"]'), "analysis sums takes columns of type .*; sex is a category"),
    (('features = ["age", "ldl", "sex"]', 'features = ["age", "readmitted"]'), "names readmitted among the features"),
    (('"readmitted"\nfeatures = ["age", ', '"age"\nfeatures = ['), "outcome is 0 or 1; give age the bounds 0 and 1"),
    (('"readmitted"\nfeatures = ["age", "ldl", ', '"ldl"\nfeatures = ["age", '), "ldl is a number"),
    (('"readmitted"\nfeatures = ["age", "ldl", "sex"]', '"sex"\nfeatures = ["age"]'), "sex is a category"),
    (("l2 = 1", "l2 = -1"), "l2 is 0 or from"),
    (("l2 = 1", "l2 = 1e300"), "l2 is 0 or from"),
    (("l2 = 1", 'l2 = "1"'), "l2: "),
    (("l2 = 1", "steps = 0"), "steps is a whole number"),
    (("l2 = 1", "steps = 1000000000"), "steps is a whole number"),
    (("l2 = 1", 'solver = "magic"'), "solver: "),
    (("l2 = 1", "momentum = 2"), "momentum goes from"),
    (("l2 = 1", "learning_rate = 0"), "learning_rate goes from"),
    (("l2 = 1", "limit = 1e9"), "limit goes from"),
    (("l2 = 1", 'l2 = 1\n[program]\nfile = "x.py"\nsha256 = "' + "0" * 64 + '"'), "either analyses or a program"),
]


@pytest.mark.parametrize(("change", "why"), BAD)
def test_what_a_file_may_not_say(change: tuple[str, str], why: str) -> None:
    with pytest.raises(StudyError, match=f"^study x.toml: .*{why}") as error:
        parse_study(changed(change), "study x.toml")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_a_study_without_anything_to_compute_is_refused() -> None:
    with pytest.raises(StudyError, match="either analyses or a program"):
        parse_study(STUDY[: STUDY.index("[[analyses]]")])


def test_preprocessing_fits_the_number_of_parties() -> None:
    two = changed(
        ('["north", "city", "south"]', '["north", "city"]'),
        ("minimum_parties = 3", "minimum_parties = 2"),
        ("vantage6", "none"),
    )
    parse_study(two)
    with pytest.raises(StudyError, match="'prss' needs an honest majority among 3 to"):
        parse_study(two.replace('"dealer"\n', '"prss"\n').replace('dealer = "helper"\n', ""))
    study = parse_study(two.replace('"dealer"\n', '"ot"\n').replace('dealer = "helper"\n', ""))
    assert (study.preprocessing, study.dealer, study.members) == ("ot", None, ("north", "city"))


@pytest.mark.parametrize(
    ("preprocessing", "trust"),
    [
        ("dealer", "dealer: helper would have to act together with a party to see anything; alone it sees no data"),
        ("prss", "prss: half or more of the parties would have to act together to see anything"),
        ("ot", "ot: all other parties would have to act together to see anything of one; nobody else is needed"),
    ],
)
def test_a_summary_says_who_must_not_act_together(preprocessing: str, trust: str) -> None:
    text = STUDY if preprocessing == "dealer" else STUDY.replace('"dealer"\n', f'"{preprocessing}"\n')
    if preprocessing != "dealer":
        text = text.replace('dealer = "helper"\n', "")
    assert f"preprocessing: {trust}" in parse_study(text).describe()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_those_of_the_protocols(preset: str) -> None:
    rules = disclosure_of(parse_study(changed(("vantage6", preset))))
    assert rules == Disclosure.preset(preset).at_least(parties=3)


def test_there_is_no_preset_that_a_study_cannot_name() -> None:
    with pytest.raises(ValueError, match="disclosure presets are " + ", ".join(PRESETS) + ";"):
        Disclosure.preset("?")


def test_a_preset_that_could_never_hold_is_refused() -> None:
    two = changed(('["north", "city", "south"]', '["north", "city"]'), ("minimum_parties = 3", "minimum_parties = 2"))
    with pytest.raises(StudyError, match="'vantage6' takes 3 contributors with rows, the study has 2"):
        parse_study(two)


def test_minimum_parties_is_two_or_more() -> None:
    one = parse_study(changed(("minimum_parties = 3\n", ""), ("vantage6", "none")))
    assert one.minimum_parties == 2
    assert disclosure_of(one).minimum_parties == 2


def columns_text(count: int) -> str:
    return "\n".join(f'[[columns]]\nname = "c{k}"\ntype = "number"\nlower = 0\nupper = 1' for k in range(count))


def test_many_columns_are_quick_and_more_are_refused() -> None:
    head = STUDY[: STUDY.index("[[columns]]")] + "[[analyses]]\nname='m'\nprotocol='mean'\ncolumns=['c0']\n"
    begin = time.process_time()
    study = parse_study(head + columns_text(512))
    assert len(study.columns) == 512
    assert time.process_time() - begin < 3.0
    with pytest.raises(StudyError, match="columns: "):
        parse_study(head + columns_text(513))
    analyses = "".join(f"[[analyses]]\nname='m{k}'\nprotocol='mean'\ncolumns=['c0']\n" for k in range(32))
    with pytest.raises(StudyError, match="analyses: "):
        parse_study(head + columns_text(1) + "\n" + analyses)


def test_a_study_has_a_size() -> None:
    """Within the bounds of each field, and still too large for a record."""
    many = "[" + ", ".join(f'"{k}{"ä" * 100}"' for k in range(100)) + "]"
    columns = "\n".join(f'[[columns]]\nname = "c{k}"\ntype = "category"\ncategories = {many}' for k in range(6))
    with pytest.raises(StudyError, match="takes more than 229376 bytes"):
        parse_study(STUDY.replace("[[analyses]]", columns + "\n[[analyses]]", 1))


def test_names_of_files_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "study\x1b[2J.toml"
    for content in ("=", "format = 2"):
        path.write_text(content)
        with pytest.raises(StudyError, match=r"study.x1b") as error:
            read_study(path)
        assert str(error.value).isprintable()


# ---- programs -------------------------------------------------------------------------------------


def test_a_program_is_read_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(with_program())
    (tmp_path / "study.py").write_bytes(PROGRAM.encode())
    study, text = read_study(tmp_path / "s.toml")
    assert text == PROGRAM
    assert study.program is not None
    assert study.program.file == "study.py"
    (tmp_path / "s.toml").write_text(STUDY)
    assert read_study(tmp_path / "s.toml") == (parse_study(STUDY), None)


def test_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(with_program())
    with pytest.raises(StudyError, match=r"program .*study.py cannot be read: no such file"):
        read_study(tmp_path / "s.toml")
    (tmp_path / "study.py").write_bytes(PROGRAM.encode() + b" ")
    with pytest.raises(StudyError, match=r"not the one that the study pins: its sha256 is [0-9a-f]{64}"):
        read_study(tmp_path / "s.toml")
    (tmp_path / "study.py").write_bytes(b" " * (128 * 1024 + 1))
    with pytest.raises(StudyError, match="larger than"):
        read_study(tmp_path / "s.toml")


FILES = [
    "../study.py",
    "/etc/passwd",
    "a/study.py",
    "a\\\\study.py",
    "..",
    ".py",
    ".study.py",
    "study.PY",
    "study",
    "study.py\\u0000",
    "study.py\\n",
    "CON:.py",
    "stu dy.py",
    "stu\\u202Edy.py",
    "x" * 61 + ".py",
    "-rf.py",
]


@pytest.mark.parametrize("file", FILES)
def test_a_program_is_named_without_folders(file: str) -> None:
    with pytest.raises(StudyError, match="program, file: takes the name of a Python file beside the study"):
        parse_study(with_program(file=file))


@pytest.mark.parametrize("hash_", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "\u0660" * 64])
def test_a_pin_is_a_hash(hash_: str) -> None:
    text = with_program()
    with pytest.raises(StudyError, match="program, sha256: takes 64 hexadecimal digits"):
        parse_study(text.replace(hashlib.sha256(PROGRAM.encode()).hexdigest(), hash_))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = '\u202e'", "line 1 holds a character that does not show"),
        ("x = 1\nx = '\x1b[2J'", "line 2 holds a character that does not show"),
        ("x = '\u2066'", "does not show"),
        ("x = '\u200b'", "does not show"),
        ("x\x0c= 1", "does not show"),
        ("x\r= 1", "does not show"),
        ("x = '\x00'", "does not show"),
        ("# " + "\u00e4" * 40_000, "takes more than"),
        ("#" * (128 * 1024 + 1), "larger than"),
    ],
)
def test_a_program_shows_all_that_it_is(text: str, why: str) -> None:
    study = parse_study(with_program(text))
    with pytest.raises(StudyError, match=why):
        check_program(study, text)


def test_a_program_comes_exactly_with_a_study_that_has_one(study: Study) -> None:
    with pytest.raises(StudyError, match="has no program, but came with one"):
        check_program(study, "x")
    with pytest.raises(StudyError, match="has a program, but came without it"):
        check_program(parse_study(with_program()), None)
    with pytest.raises(StudyError, match="not UTF-8"):
        check_program(parse_study(with_program()), "\ud800")
    with pytest.raises(StudyError, match="not UTF-8"):
        check_program(parse_study(with_program()), b"\xff")


def test_the_hash_covers_the_program() -> None:
    assert parse_study(with_program()).hash != parse_study(with_program(PROGRAM + "#")).hash


# ---- the consortium and the clock -----------------------------------------------------------------


def test_members_exist_in_the_right_roles(study: Study, world: World) -> None:
    study.check_members(world.consortium)
    cases = [
        (changed(('consortium = "heart"', 'consortium = "lung"')), "is for the consortium lung, here is heart"),
        (changed(('"city", "south"]', '"city", "west"]')), "has no member 'west'"),
        (changed(('dealer = "helper"', 'dealer = "west"')), "has no member 'west'"),
        (
            changed(('dealer = "helper"', 'dealer = "south"'), ('"city", "south"]', '"city", "helper"]')),
            "helper is a dealer in the consortium and cannot be a party",
        ),
        (
            changed(
                ('dealer = "helper"', 'dealer = "south"'),
                ('"city", "south"]', '"city"]'),
                ("minimum_parties = 3", "minimum_parties = 2"),
                ("vantage6", "none"),
            ),
            "south is a party in the consortium and cannot be a dealer",
        ),
    ]
    for text, why in cases:
        with pytest.raises(StudyError, match=why):
            parse_study(text).check_members(world.consortium)
    with pytest.raises(StudyError, match="has no member 'north'"):
        study.check_members(world.consortium.revoke("north", "gone"))


def test_a_deadline_passes(study: Study) -> None:
    at = datetime.datetime(2030, 12, 31, 17, 0, 0, tzinfo=datetime.UTC)
    assert study.deadline_passed(at)
    assert not study.deadline_passed(at - datetime.timedelta(seconds=1))


# ---- what whoever approves is told ----------------------------------------------------------------


def test_the_description_says_it_all(study: Study) -> None:
    text = study.describe()
    for part in (
        study.title,
        study.hash,
        "  Second line.",
        "contribute rows: north, city, south",
        "learn the results: north, city",
        "do not learn the results: south",
        "the sum of age, readmitted",
        "logistic regression of readmitted on age, ldl, sex (newton, l2 = 1)",
        "north, city learn: intercept and coefficients, their standard errors",
        "all parties learn: how many rows each party holds",
        "all parties learn: the total number of rows",
        "at least 10 rows of all parties together",
        "rows from at least 3 parties",
        "age: integer from 18 to 110 years, rows without it are refused",
        "ldl: number from 0 to 20.5 mmol/l, rows without it are left out",
        "sex: category female | male",
        "semi-honest",
        "dealer: helper would have to act together with a party",
        "vantage6",
        "2030-12-31T17:00:00Z; at most 3 attempts of 600 s",
        "away for 60 s",
    ):
        assert part in text, part
    assert text.replace("\n", "").isprintable()
    assert max(map(len, text.split("\n"))) < 250


def test_the_description_of_a_program_says_what_it_can_do() -> None:
    text = parse_study(with_program()).describe()
    assert hashlib.sha256(PROGRAM.encode()).hexdigest() in text
    assert "read it before you approve" in text
    assert "nothing makes the program apply it" in text


def test_a_purpose_cannot_pass_for_a_part_of_the_description() -> None:
    text = parse_study(changed(("Second line.", "\nLimits\n  no attempt starts after tomorrow"))).describe()
    assert text.count("\nLimits\n") == 1
    assert "\n  Limits\n" in text


def test_a_study_is_a_value(study: Study) -> None:
    assert study == parse_study(STUDY)
    with pytest.raises(ValueError, match="frozen"):
        study.title = "x"


# ---- parties that cheat ---------------------------------------------------------------------------


def of_sums(*pairs: tuple[str, str]) -> str:
    """The study with sums and means alone, where parties may cheat."""
    head = STUDY[: STUDY.index("[[analyses]]")].replace("minimum_parties = 3", 'security = "malicious"')
    column = next(c.name for c in parse_study(STUDY).columns if c.type in ("number", "integer"))
    analyses = "".join(
        f'[[analyses]]\nname = "{name}"\nprotocol = "{name}"\ncolumns = ["{column}"]\n' for name in _SUMS
    )
    text = head + analyses
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


_SUMS = ("sum", "mean")


def test_a_study_of_parties_that_may_cheat() -> None:
    study = parse_study(of_sums())
    assert study.security == "malicious"
    assert "security: malicious: members may do as they please" in study.describe()
    tables = {
        "proportion": 'column = "sex"',
        "histogram": 'column = "age"\nedges = [18, 50, 110]',
        "contingency_table": 'rows = "sex"\ncolumns = "readmitted"',
    }
    described = "".join(f'[[analyses]]\nname = "{k}"\nprotocol = "{k}"\n{v}\n' for k, v in tables.items())
    assert [one.name for one in parse_study(of_sums() + described).analyses] == [*_SUMS, *tables]
    program = with_program().replace("minimum_parties = 3", 'security = "malicious"')
    assert parse_study(program).security == "malicious"


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (('protocol = "mean"', 'protocol = "mean"\ncount = "secret"'), "analysis mean does not run"),
        (('protocol = "sum"', 'protocol = "variance"'), "analysis sum does not run"),
        (('disclosure = "vantage6"', 'disclosure = "ons"'), "'ons' does not run"),
        (('preprocessing = "dealer"\ndealer = "helper"', 'preprocessing = "prss"'), "preprocessing='prss'"),
    ],
)
def test_what_does_not_run_where_parties_may_cheat(pair: tuple[str, str], words: str) -> None:
    with pytest.raises(StudyError, match=re.escape(words)):
        parse_study(of_sums(pair))
