"""What holds the architecture: read from the sources, so that no import order can hide a sin.

Every rule is a function from one module's syntax tree to the sins in it, and is itself tried on a
guilty module: a rule that finds nothing because it is broken would look like a clean code base.
"""

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("mpc", "protocols", "parties")  # bottom to top
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}

# Not among the base dependencies: parties may import these, once somebody asks for them.
EXTRAS = {"pandas", "pyarrow", "sqlalchemy", "psycopg", "prometheus_client", "sklearn", "statsmodels", "matplotlib"}
# What a layer may lean on beside the layers below and the standard library.
LEANS_ON = {
    "mpc": {"numpy", "cryptography", "nacl"},
    "protocols": {"numpy", "scipy"},
    "parties": {"numpy", "scipy", "cryptography", "aiohttp", "rich", "typer", "pydantic", "threadpoolctl", "uvloop"}
    | EXTRAS,
}
# Networks and clocks belong to parties; the layers below are handed a transport and a clock.
WORLDLY = {"socket", "ssl", "http", "urllib", "subprocess", "time", "datetime"}
HEAVY = EXTRAS | {"scipy", "rich", "typer", "pydantic"}
LONGEST = 450  # past about 400 lines: what is the second idea?

Rule = Callable[[str, ast.Module], Iterator[str]]


@functools.cache
def every(tree: ast.AST) -> list[ast.AST]:
    """All that a tree consists of; no rule changes it, so they walk over it once together."""
    return list(ast.walk(tree))


def imports(module: str, tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every imported name, absolute, with its statement: ``from a import b`` gives ``a.b``."""
    package = MODULES.get(module, Path(f"{module}.py"))
    parts = module.split(".") if package.name == "__init__.py" else module.split(".")[:-1]
    for node in every(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            yield from ((node, ".".join([*base, alias.name])) for alias in node.names)


def dotted(node: ast.expr) -> str:
    """``np.random.rand`` for the expression of that shape, and ``""`` for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def arrows_point_down(module: str, tree: ast.Module) -> Iterator[str]:
    layer = module.split(".")[0]
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for node, name in imports(module, tree):
        top = name.split(".")[0]
        if top in above:
            yield f"line {node.lineno}: {layer} must not know {top}"
        elif top in WORLDLY and layer != "parties":
            yield f"line {node.lineno}: {layer} must not know {top}"
        elif top not in LAYERS and top not in sys.stdlib_module_names and top not in LEANS_ON[layer]:
            yield f"line {node.lineno}: {layer} does not lean on {top}"


def nothing_is_pickled(module: str, tree: ast.Module) -> Iterator[str]:
    for statement, name in imports(module, tree):
        if name.split(".")[0] in {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}:
            yield f"line {statement.lineno}: imports {name}"
    for node in every(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"line {node.value.lineno}: allow_pickle"


def randomness_is_cryptographic(module: str, tree: ast.Module) -> Iterator[str]:
    for statement, name in imports(module, tree):
        if name.split(".")[0] == "random" or name.startswith(("numpy.random", "scipy.stats.sampling")):
            yield f"line {statement.lineno}: imports {name}"
    for node in every(tree):
        if isinstance(node, ast.Attribute) and dotted(node) in {"np.random", "numpy.random"}:
            yield f"line {node.lineno}: uses {dotted(node)}"


def peers_are_not_asserted(module: str, tree: ast.Module) -> Iterator[str]:
    """``python -O`` drops asserts, and an AssertionError names no peer."""
    for node in every(tree):
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno}: assert"


def tasks_have_an_owner(module: str, tree: ast.Module) -> Iterator[str]:
    """A protocol's tasks live in a TaskGroup: one that fails stops the others."""
    if not module.startswith("parties"):
        for node in every(tree):
            if isinstance(node, ast.Attribute) and dotted(node) in {
                "asyncio.create_task",
                "asyncio.ensure_future",
                "loop.create_task",
            }:
                yield f"line {node.lineno}: {dotted(node)} instead of a TaskGroup"


def nothing_is_in_the_air(module: str, tree: ast.Module) -> Iterator[str]:
    """No star imports, no rebinding of module globals."""
    for statement, name in imports(module, tree):
        if name.endswith(".*"):
            yield f"line {statement.lineno}: star import"
    for node in every(tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"


def certificates_are_checked(module: str, tree: ast.Module) -> Iterator[str]:
    for node in every(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"CERT_NONE", "CERT_OPTIONAL"}:
            yield f"line {node.lineno}: {node.attr}"
        if isinstance(node, ast.Attribute) and dotted(node) == "ssl._create_unverified_context":
            yield f"line {node.lineno}: {dotted(node)}"


def extras_come_late(module: str, tree: ast.Module) -> Iterator[str]:
    """What base dependencies do not bring is imported by the function that needs it."""
    inside = {
        inner
        for node in every(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in every(node)
    }
    for statement, name in imports(module, tree):
        if name.split(".")[0] in EXTRAS and statement not in inside:
            yield f"line {statement.lineno}: imports {name} before anyone asked"


GUILTY: list[tuple[Rule, str, str]] = [
    (arrows_point_down, "mpc.share", "from parties import simulate"),
    (arrows_point_down, "mpc.share", "def late():\n    import protocols.regression"),
    (arrows_point_down, "protocols.sums", "from parties.mesh import Mesh"),
    (arrows_point_down, "mpc.costs", "import time"),
    (arrows_point_down, "mpc.costs", "from time import monotonic"),
    (arrows_point_down, "mpc.transport", "import aiohttp"),
    (arrows_point_down, "protocols.sums", "import pandas as pd"),
    (nothing_is_pickled, "parties.mesh", "import pickle"),
    (nothing_is_pickled, "parties.mesh", "from marshal import loads"),
    (nothing_is_pickled, "parties.mesh", "np.load(path, allow_pickle=True)"),
    (randomness_is_cryptographic, "mpc.prg", "import random"),
    (randomness_is_cryptographic, "mpc.prg", "from numpy import random"),
    (randomness_is_cryptographic, "mpc.prg", "from numpy.random import default_rng"),
    (randomness_is_cryptographic, "mpc.prg", "import numpy as np\nnp.random.default_rng()"),
    (peers_are_not_asserted, "parties.mesh", "def f(x):\n    assert x"),
    (tasks_have_an_owner, "mpc.opening", "asyncio.create_task(f())"),
    (nothing_is_in_the_air, "mpc.field", "from numpy import *"),
    (nothing_is_in_the_air, "mpc.party", "def f():\n    global current\n    current = 1"),
    (certificates_are_checked, "parties.mesh", "context.verify_mode = ssl.CERT_NONE"),
    (extras_come_late, "parties.demo", "import matplotlib.pyplot as plt"),
]
RULES = sorted({rule for rule, _, _ in GUILTY}, key=lambda rule: rule.__name__)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A module's syntax tree; no rule changes it."""
    return ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule) -> None:
    found = [
        f"{path.relative_to(ROOT)} {sin}" for module, path in MODULES.items() for sin in rule(module, tree_of(path))
    ]
    assert not found


@pytest.mark.parametrize(("rule", "module", "source"), GUILTY)
def test_rule_finds_the_guilty(rule: Rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source)))


def test_rules_read_relative_imports() -> None:
    tree = ast.parse("from ..parties import mesh\nfrom . import share\nfrom .field import F127")
    names = [name for _, name in imports("mpc.arithmetic", tree)]
    assert names == ["parties.mesh", "mpc.share", "mpc.field.F127"]


def test_all_three_layers_are_read() -> None:
    assert {module.split(".")[0] for module in MODULES} == set(LAYERS)


def test_modules_have_one_idea() -> None:
    lines = {module: len(path.read_text("utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: n for module, n in lines.items() if n > LONGEST} == {}


def test_no_module_imports_itself_in_a_circle() -> None:
    """At import time, that is: an import inside a function may close a circle."""

    def known(name: str) -> str | None:
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        return name or None

    def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from at_import([*node.body, *node.orelse])
            elif isinstance(node, ast.Try):
                yield from at_import([*node.body, *(s for h in node.handlers for s in h.body), *node.orelse])

    needs: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        statements = ast.Module(list(at_import(ast.parse(path.read_text("utf-8")).body)), [])
        needs[module] = {known(name) or "" for _, name in imports(module, statements)} - {"", module}
        if path.name == "__init__.py":  # a package is only an index of its modules
            needs[module] = set()

    TopologicalSorter(needs).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        ("mpc", HEAVY | {"aiohttp"}),
        ("mpc, protocols", HEAVY | {"aiohttp"}),
        ("mpc, protocols, parties", HEAVY),
        ("parties.cli, parties.node.client", EXTRAS | {"scipy", "aiohttp", "protocols"}),
        (
            "parties.node.loader, parties.data.sources, parties.governance.schema",
            EXTRAS | {"scipy", "aiohttp", "protocols"},
        ),
    ],
)
def test_imports_are_light_and_silent(names: str, absent: set[str]) -> None:
    """A party must be up within a second, a command sooner; a result as simple as a sum needs none of these."""
    program = f"import sys, {names}\nprint(*sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_base_dependencies_cover_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {name.partition(">")[0].replace("pynacl", "nacl") for name in project["dependencies"]}
    assert declared == set().union(*LEANS_ON.values()) - EXTRAS
