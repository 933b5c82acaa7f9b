"""Ports for servers of the tests: each of the processes that share the tests out takes from a range of its own."""

import itertools
import os
import socket

# Below the ports that the kernel gives to whoever dials, so that no connection takes one between probe and use.
_FIRST, _LAST, _EACH = 20_000, 32_000, 2_000
_counter = itertools.count(os.getpid() % _EACH)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and that no other process of the tests will take."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    start = _FIRST + int(worker) * _EACH % (_LAST - _FIRST)
    found: list[int] = []
    for number in itertools.islice(_counter, _EACH):
        port = start + number % _EACH
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports from {start} on")


def free_port() -> int:
    """Return one of them."""
    return free_ports(1)[0]
