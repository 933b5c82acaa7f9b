"""A node as a process: what it leaves, should it crash, and who may look in."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.node.world import World

ROOT = Path(__file__).resolve().parents[2]
NODE = """
import asyncio, ctypes, os, pathlib, resource, signal, sys
sys.path.insert(0, {root!r})
from parties.node import service
from parties.node.config import load_config
from parties.node.running import run_node

def tell(when):
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    print(when, dumpable, *resource.getrlimit(resource.RLIMIT_CORE), flush=True)

def load(*given):
    tell("key")
    return real(*given)

def ready(node):
    tell("ready")
    os.kill(os.getpid(), signal.SIGTERM)

resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
real, service.load = service.load, load
asyncio.run(run_node(load_config(pathlib.Path({place!r})), ready=ready, role={role!r}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize("role", ["party", "dealer"])
def test_a_node_leaves_no_dump_of_its_keys_and_lets_nobody_look_in(tmp_path: Path, role: str) -> None:
    world = World(tmp_path, dealer="helper")
    name = "helper" if role == "dealer" else "city"
    world.write_config(name, source=role == "party")
    code = NODE.format(root=str(ROOT), place=str(world.directory / name), role=role)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["key 0 0 0", "ready 0 0 0"]
