"""Hosts of their own on one machine: network namespaces with a wide-area network between them.

Each host is a namespace with one veth cable to a switch, which is a bridge in a namespace of its own, so that
nothing of the machine's own network is touched. Delay and loss are ``tc netem``'s. A kernel that was built without
netem gets cables whose other end is a small program (:func:`main`) that forwards packets late and loses some: the
same to the nodes, for they see addresses, a round trip and retransmissions.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

DELAY_MS = 20
LOSS = 0.01
_PREFIX = "10.83.7"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


class NoNetworkError(Exception):
    """This machine does not let us make networks; the text says what was refused."""


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise NoNetworkError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")


@dataclass
class Wan:
    """Namespaces with addresses of their own; use it in a ``with`` block.

    Parameters
    ----------
    hosts : sequence of str
        Names, at most 8 letters.
    hub : str
        The one host that can be reached; all others are behind firewalls and reach only this one. Empty: everybody
        reaches everybody.
    """

    hosts: Sequence[str]
    hub: str = ""
    shaped_by: str = ""
    _made: list[str] = field(default_factory=list)
    _switch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Wan:
        for tool in ("ip", "tc"):
            if shutil.which(tool) is None:
                raise NoNetworkError(f"there is no `{tool}` here (on Debian: apt-get install iproute2)")
        if os.geteuid() != 0:
            raise NoNetworkError("making network namespaces needs root")
        try:
            for host in (*self.hosts, "switch"):
                self._add(host)
            try:
                self._cable_with_netem()
                self.shaped_by = "tc netem"
            except NoNetworkError as refused:
                if "qdisc kind is unknown" not in str(refused):
                    raise
                self._unplug()
                self._cable_to_a_program()
                self.shaped_by = "a program, since this kernel has no netem"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._switch is not None:
            self._switch.terminate()
            self._switch.wait(10)
            self._switch = None
        while self._made:
            subprocess.run(["ip", "netns", "delete", self._made.pop()], capture_output=True, timeout=20, check=False)

    def address(self, host: str) -> str:
        """The address of a host."""
        return f"{_PREFIX}.{list(self.hosts).index(host) + 1}"

    def at(self, host: str) -> list[str]:
        """What to put before a command, so that it runs at that host."""
        return ["ip", "netns", "exec", self._name(host)]

    def _name(self, host: str) -> str:
        return f"sv{os.getpid()}-{host}"

    def _add(self, host: str) -> None:
        _command("ip", "netns", "add", self._name(host))
        self._made.append(self._name(host))
        _command("ip", "-n", self._name(host), "link", "set", "lo", "up")

    def _cable_with_netem(self) -> None:
        switch = self._name("switch")
        _command("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _command("ip", "-n", switch, "link", "set", "bridge", "up")
        for number, host in enumerate(self.hosts):
            name, port = self._name(host), f"port{number}"
            _command("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            _command("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
            if self.hub and host != self.hub:  # isolated ports hear only those that are not
                _command("ip", "-n", switch, "link", "set", port, "type", "bridge_slave", "isolated", "on")
            _command("ip", "-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            _command("ip", "-n", name, "link", "set", "eth0", "up")
        for host in self.hosts:
            shape = f"delay {DELAY_MS}ms loss {LOSS:.0%}".split()
            _command("tc", "-n", self._name(host), "qdisc", "add", "dev", "eth0", "root", "netem", *shape)

    def _unplug(self) -> None:
        _command("ip", "-n", self._name("switch"), "link", "delete", "bridge")
        for host in self.hosts:
            _command("ip", "-n", self._name(host), "link", "delete", "eth0")

    def _cable_to_a_program(self) -> None:
        tunnels = []
        try:
            for number, host in enumerate(self.hosts):
                try:
                    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                    tunnels.append(tunnel)
                    device = f"sv{os.getpid()}-{number}"  # until it is in its namespace; at most 15 letters
                    fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
                except OSError as error:
                    raise NoNetworkError(f"no netem in this kernel, and no /dev/net/tun: {error.strerror}") from None
                name = self._name(host)
                _command("ip", "link", "set", device, "netns", name)
                _command("ip", "-n", name, "link", "set", device, "name", "eth0")
                _command("ip", "-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
                _command("ip", "-n", name, "link", "set", "eth0", "up")
            hub = str(list(self.hosts).index(self.hub) if self.hub else -1)
            arguments = [sys.executable, os.path.abspath(__file__), hub, *map(str, tunnels)]
            self._switch = subprocess.Popen(arguments, pass_fds=tunnels)
        finally:
            for tunnel in tunnels:
                os.close(tunnel)


def main(hub: int, tunnels: Sequence[int]) -> None:
    """Forward packets between tunnels by the last byte of their address, late, and lose some."""
    chance = random.Random(1)  # the same losses each time, as far as the packets are the same
    late: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        pause = max(0.0, late[0][0] - time.monotonic()) if late else None
        readable, _, _ = select.select(tunnels, [], [], pause)
        now = time.monotonic()
        for tunnel in readable:
            for _ in range(64):
                try:
                    packet = os.read(tunnel, 65536)
                except BlockingIOError:
                    break
                if packet[0] >> 4 != 4 or chance.random() < LOSS:
                    continue
                to = packet[19] - 1
                if 0 <= to < len(tunnels) and (hub < 0 or hub in (to, tunnels.index(tunnel))):
                    count += 1
                    heapq.heappush(late, (now + DELAY_MS / 1000, count, tunnels[to], packet))
        while late and late[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(late)
            try:
                os.write(to, packet)
            except OSError:  # its host is gone, or cannot take more: lost, as on a real network
                continue


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(word) for word in sys.argv[2:]])
