"""The first thing that a worker's process runs: it locks itself in, and only then loads anything.

Run by its path and with the standard library alone, since what is set here holds for this thread and those
that it will start: a library that is loaded before brings threads of its own.

What a worker cannot do from here on, where Linux offers it (:func:`enter` says what is in force):

- write files, or read any but Python's libraries and a few public files of the system (Landlock): not the
  node's key, its records, its ledger or the organisation's data;
- start programs or processes, trace, signal, slow down or look into other processes, change the rights of
  files, talk to local services over Unix sockets or shared memory, listen on the network, change limits or
  namespaces, or reach for less common parts of the kernel (seccomp);
- gain rights by set-uid programs; take more memory, computing time, descriptors or file size than its limits.

What it can do: connect to any address at the ports of members, relays and proxy (any port before Linux 6.7),
since a link that was lost is dialled again; send datagrams, if names of members must be resolved; see names,
sizes and dates of files. Who must keep a program from talking to others does so in the firewall.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mimetypes
import os
import platform
import resource
import signal
import ssl
import struct
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FILES = "files"
SYSTEM_CALLS = "system calls"
LIMITS = "limits"
PORTS = "ports"
# What a program of somebody else needs around it.
NEEDED = frozenset({FILES, SYSTEM_CALLS, LIMITS})

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_ORPHANED_STATUS = 71
_LAST_CPU_SECONDS = 5

# ---- files: Landlock (linux/landlock.h) ---------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all machines
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_OF_FILES = 1 << 0 | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
_READ = _READ_FILE | _READ_DIR
# How many rights there are, by version: all are withheld that the kernel knows, and few given.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_LATEST_RIGHTS = 16
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_NET_PORT = 2
_NAMES_PORT = 53
_ABSTRACT_SOCKETS_AND_SIGNALS = 1 << 0 | 1 << 1

# What the C library, OpenSSL and numpy read. None of it is anybody's secret.
_PUBLIC = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo"),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki", "/etc/pki/ca-trust"),
    *("/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies"),
    *("/etc/ssl/cert.pem", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"),
    *("/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
    *("/dev/urandom", "/dev/random", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
    *map(str, mimetypes.knownfiles),  # aiohttp
)
_OUR_PACKAGES = ("mpc", "protocols", "parties")

# ---- system calls: seccomp (linux/filter.h, linux/seccomp.h) ------------------------------------

_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
_O_TRUNC = 0o1000

_REFUSED = (
    *("execve", "execveat", "fork", "vfork"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal"),
    *("kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setpriority", "sched_setaffinity"),
    *("sched_setscheduler", "sched_setparam", "sched_setattr", "ioprio_set"),
    *("bind", "listen", "prctl", "setrlimit", "setsid", "setpgid"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes"),
    *("utimensat", "futimesat", "truncate"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("inotify_init", "inotify_init1", "fanotify_init", "shmget", "shmat", "msgget", "semget", "mq_open"),
    *("bpf", "userfaultfd", "perf_event_open", "keyctl", "add_key", "request_key", "open_by_handle_at"),
    *("mount", "umount2", "mount_setattr", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick"),
    *("pivot_root", "chroot", "unshare", "setns"),
    *("quotactl", "quotactl_fd", "acct", "personality", "reboot", "init_module", "finit_module", "delete_module"),
    *("kexec_load", "kexec_file_load"),
    *("swapon", "swapoff", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname"),
    *("setdomainname", "iopl", "ioperm", "modify_ldt"),
    *("syslog", "lookup_dcookie", "migrate_pages", "move_pages"),
)
# These are said not to exist, so that libraries take the older call, which we can look into, or do without.
_ABSENT = ("clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register")

# Numbers by machine, from the kernel's own tables (asm/unistd_64.h, asm-generic/unistd.h).
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        **{"execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "ptrace": 101, "process_vm_readv": 310},
        **{"process_vm_writev": 311, "process_madvise": 440, "process_mrelease": 448, "kcmp": 312},
        **{"pidfd_open": 434, "pidfd_getfd": 438, "pidfd_send_signal": 424, "kill": 62, "tkill": 200},
        **{"rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "setpriority": 141, "sched_setaffinity": 203},
        **{"sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314, "ioprio_set": 251, "bind": 49},
        **{"listen": 50, "prctl": 157, "setrlimit": 160, "setsid": 112, "setpgid": 109, "chmod": 90},
        **{"fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94},
        **{"fchownat": 260, "utime": 132, "utimes": 235, "utimensat": 280, "futimesat": 261, "setxattr": 188},
        **{"lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199},
        **{"inotify_init": 253, "inotify_init1": 294, "fanotify_init": 300, "shmget": 29, "shmat": 30},
        **{"msgget": 68, "semget": 64, "mq_open": 240, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298},
        **{"keyctl": 250, "add_key": 248, "request_key": 249, "open_by_handle_at": 304, "mount": 165},
        **{"umount2": 166, "mount_setattr": 442, "move_mount": 429, "open_tree": 428, "fsopen": 430},
        **{"fsconfig": 431, "fsmount": 432, "fspick": 433, "pivot_root": 155, "chroot": 161, "unshare": 272},
        **{"setns": 308, "quotactl": 179, "quotactl_fd": 443, "acct": 163, "personality": 135, "reboot": 169},
        **{"init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246},
        **{"kexec_file_load": 320, "swapon": 167, "swapoff": 168, "settimeofday": 164, "clock_settime": 227},
        **{"adjtimex": 159, "clock_adjtime": 305, "sethostname": 170, "setdomainname": 171, "iopl": 172},
        **{"ioperm": 173, "modify_ldt": 154, "syslog": 103, "lookup_dcookie": 212, "migrate_pages": 256},
        **{"move_pages": 279, "clone3": 435, "io_uring_setup": 425, "io_uring_enter": 426},
        **{"io_uring_register": 427, "clone": 56, "tgkill": 234, "prlimit64": 302, "socket": 41, "fcntl": 72},
        **{"ioctl": 16, "truncate": 76, "open": 2, "openat": 257, "openat2": 437, "socketpair": 53},
    },
    "aarch64": {
        **{"execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271},
        **{"process_madvise": 440, "process_mrelease": 448, "kcmp": 272, "pidfd_open": 434, "pidfd_getfd": 438},
        **{"pidfd_send_signal": 424, "kill": 129, "tkill": 130, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240},
        **{"setpriority": 140, "sched_setaffinity": 122, "sched_setscheduler": 119, "sched_setparam": 118},
        **{"sched_setattr": 274, "ioprio_set": 30, "bind": 200, "listen": 201, "prctl": 167, "setrlimit": 164},
        **{"setsid": 157, "setpgid": 154, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55},
        **{"fchownat": 54, "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14},
        **{"lremovexattr": 15, "fremovexattr": 16, "inotify_init1": 26, "fanotify_init": 262, "shmget": 194},
        **{"shmat": 196, "msgget": 186, "semget": 190, "mq_open": 180, "bpf": 280, "userfaultfd": 282},
        **{"perf_event_open": 241, "keyctl": 219, "add_key": 217, "request_key": 218, "open_by_handle_at": 265},
        **{"mount": 40, "umount2": 39, "mount_setattr": 442, "move_mount": 429, "open_tree": 428, "fsopen": 430},
        **{"fsconfig": 431, "fsmount": 432, "fspick": 433, "pivot_root": 41, "chroot": 51, "unshare": 97},
        **{"setns": 268, "quotactl": 60, "quotactl_fd": 443, "acct": 89, "personality": 92, "reboot": 142},
        **{"init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104},
        **{"kexec_file_load": 294, "swapon": 224, "swapoff": 225, "settimeofday": 170, "clock_settime": 112},
        **{"adjtimex": 171, "clock_adjtime": 266, "sethostname": 161, "setdomainname": 162, "syslog": 116},
        **{"lookup_dcookie": 18, "migrate_pages": 238, "move_pages": 239, "clone3": 435, "io_uring_setup": 425},
        **{"io_uring_enter": 426, "io_uring_register": 427, "clone": 220, "tgkill": 131, "prlimit64": 261},
        **{"socket": 198, "fcntl": 25, "ioctl": 29, "truncate": 45, "openat": 56, "openat2": 437, "socketpair": 199},
    },
}
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

Instruction = tuple[int, int, int, int]


def enter(settings: dict[str, Any]) -> list[str]:
    """Lock this process in, as far as this system can.

    Parameters
    ----------
    settings : dict
        ``cores``, ``memory_mb``, ``cpu_seconds``, ``files``, ``file_bytes``: see :func:`restrict`;
        ``readable``: further paths that may be read; ``hidden``: a directory that may not, wherever it is;
        ``ports``: those that may be connected to, or None for all; ``names``: whether names of hosts must be
        resolved.

    Returns
    -------
    list of str
        What is in force: :data:`FILES`, :data:`SYSTEM_CALLS`, :data:`LIMITS`, :data:`PORTS`.
    """
    restrict(
        settings["cores"], settings["memory_mb"], settings["cpu_seconds"], settings["files"], settings["file_bytes"]
    )
    in_force = [LIMITS]
    if sys.platform != "linux":
        return in_force
    libc = ctypes.CDLL(None, use_errno=True)
    ports = settings["ports"]
    if ports is not None and settings["names"]:
        ports = [*ports, _NAMES_PORT]
    version = close_files(libc, settings["readable"], Path(settings["hidden"]), ports)
    if version:
        in_force.append(FILES)
    if version >= 4 and ports is not None:
        in_force.append(PORTS)
    if close_system_calls(libc, datagrams=settings["names"]):
        in_force.append(SYSTEM_CALLS)
    return in_force


def keep_to_ourselves() -> None:
    """Leave no core dump, which would hold our keys, and let nobody of our user look in: for nodes, too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _control(_PR_SET_DUMPABLE, 0)


def belong_to_node() -> None:
    """End when the node does, gain no rights, let nobody of our user look in (Linux)."""
    if sys.platform != "linux":
        return
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _control(_PR_SET_NO_NEW_PRIVS, 1)
    _control(_PR_SET_DUMPABLE, 0)


def _control(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def restrict(cores: int, memory_mb: int, cpu_seconds: int, files: int, file_bytes: int) -> None:
    """Set limits on ourselves.

    Parameters
    ----------
    cores : int
        Processor cores to run on.
    memory_mb : int
        Memory that we may ask for.
    cpu_seconds : int
        Computing time.
    files : int
        Descriptors that may be open.
    file_bytes : int
        Size of a file that we write.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        # What is mapped privately and can be written: the heap, arrays, stacks; not the code of libraries.
        resource.RLIMIT_DATA: memory_mb * 1024 * 1024,
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_FSIZE: file_bytes,
    }
    for which, most in limits.items():
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
    # First the signal that says why (SIGXCPU), then the one that cannot be ignored.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or hard > cpu_seconds + _LAST_CPU_SECONDS:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + _LAST_CPU_SECONDS))
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if cores < len(allowed):
            first = os.getpid() % len(allowed)  # several workers do not all take the same ones
            os.sched_setaffinity(0, {allowed[(first + k) % len(allowed)] for k in range(cores)})


# ---- files --------------------------------------------------------------------------------------


def close_files(libc: ctypes.CDLL, readable: Iterable[str], hidden: Path, ports: Iterable[int] | None = None) -> int:
    """Withhold all files, and ports, but those that we need; returns Landlock's version, 0 if there is none."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if version < 1:
        return 0
    withheld = (1 << _RIGHTS.get(version, _LATEST_RIGHTS)) - 1
    network = (_BIND_TCP | (0 if ports is None else _CONNECT_TCP)) if version >= 4 else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    attributes = struct.pack("=QQQ", withheld, network, scoped)
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if rules < 0:
        return 0
    try:
        for path, rights in _given(readable, hidden):
            _give(libc, rules, path, rights & withheld)
        for port in set(ports or ()) if network & _CONNECT_TCP else ():
            _add(libc, rules, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port))
        restricted = libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0)) == 0
        return int(version) if restricted else 0
    finally:
        os.close(rules)


def _given(readable: Iterable[str], hidden: Path) -> Iterator[tuple[str, int]]:
    """Yield what may be used, and how."""
    yield os.getcwd(), _READ
    yield os.devnull, _READ_FILE | _WRITE_FILE
    verify = ssl.get_default_verify_paths()
    paths = sysconfig.get_paths()
    libraries = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    searched = {place for place in sys.path if place} | set(os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    libraries |= {os.path.join(prefix, "lib") for prefix in (sys.prefix, sys.base_prefix)}
    openssl = {verify.openssl_cafile, verify.openssl_capath, verify.cafile or "", verify.capath or ""}
    openssl.add(os.path.join(os.path.dirname(verify.openssl_cafile), "openssl.cnf"))
    for path in {*_PUBLIC, *libraries, *searched, *openssl, *readable} - {""}:
        # A place that has the node's own files below it, as where the node is tried out in a checkout:
        # its names can be listed, or nothing could be imported from there, and our packages read.
        if _is_above(Path(path), hidden):
            yield path, _READ_DIR
            for package in _OUR_PACKAGES:
                yield os.path.join(path, package), _READ
        else:
            yield path, _READ


def _is_above(path: Path, hidden: Path) -> bool:
    try:
        return hidden.resolve().is_relative_to(path.resolve())
    except OSError:
        return True


def _give(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what does not exist need not be given
    try:
        if not os.path.isdir(f"/proc/self/fd/{handle}"):
            rights &= _OF_FILES
        _add(libc, rules, _PATH_BENEATH, struct.pack("=Qi", rights, handle))
    finally:
        os.close(handle)


def _add(libc: ctypes.CDLL, rules: int, kind: int, rule: bytes) -> None:
    if libc.syscall(_ADD_RULE, ctypes.c_int(rules), kind, rule, ctypes.c_uint32(0)) != 0:
        raise OSError(ctypes.get_errno(), "a rule of Landlock was refused")


# ---- system calls -------------------------------------------------------------------------------


def close_system_calls(libc: ctypes.CDLL, *, datagrams: bool = True) -> bool:
    """Withhold system calls that we do not need; False where we do not know how."""
    machine = platform.machine()
    if machine not in _NUMBERS or sys.maxsize < 2**32 or sys.byteorder != "little":
        return False
    instructions = system_call_filter(machine, os.getpid(), datagrams=datagrams)
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    return bool(libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), header, 0, 0) == 0)


def system_call_filter(machine: str, pid: int, *, datagrams: bool = True) -> list[Instruction]:
    """Return the filter as instructions of the packet filter machine (BPF)."""
    numbers = _NUMBERS[machine]
    refuse = (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    absent = (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)
    allow = (_RETURN, 0, 0, _ALLOW)
    program: list[Instruction] = [(_LOAD, 0, 0, _MACHINE_AT), (_EQUAL, 1, 0, _MACHINES[machine]), refuse]
    program.append((_LOAD, 0, 0, _NUMBER_AT))
    program += [(_AT_LEAST, 0, 1, _X32_BIT), refuse]
    for names, answer in ((_REFUSED, refuse), (_ABSENT, absent)):
        for name in names:
            if name in numbers:
                program += [(_EQUAL, 0, 1, numbers[name]), answer]
    looked_into: dict[str, list[Instruction]] = {
        # Nobody else's process is to get signals from descriptors of ours, or input from a terminal.
        "fcntl": [_argument(1), *_unless(8, 10, 15), refuse, allow],  # F_SETOWN, F_SETSIG, F_SETOWN_EX
        "ioctl": [_argument(1), *_unless(0x8901, 0x8902, 0x5412), refuse, allow],  # FIOSETOWN, SIOCSPGRP, TIOCSTI
        # A thread, but no process.
        "clone": [_argument(0), (_ANY_OF, 1, 0, _CLONE_THREAD), refuse, allow],
        # A signal to ourselves, as abort() sends it.
        "tgkill": [_argument(0), (_EQUAL, 1, 0, pid), refuse, allow],
        # Limits may be read: the pointer to new ones is null.
        "prlimit64": [_argument(2), (_EQUAL, 0, 2, 0), _argument(2, high=True), (_EQUAL, 1, 0, 0), refuse, allow],
        # Landlock does not keep files from being cut off before its version 3 (Linux 6.2).
        "open": [_argument(1), (_ANY_OF, 0, 1, _O_TRUNC), refuse, allow],
        "openat": [_argument(2), (_ANY_OF, 0, 1, _O_TRUNC), refuse, allow],
        # A pair that datagrams go through could send them to any local service.
        "socketpair": [_argument(1), (_AND, 0, 0, 0xF), (_EQUAL, 1, 0, 1), refuse, allow],
        # Internet addresses, and neither raw packets nor local services.
        "socket": [
            _argument(0),
            *((_EQUAL, 2, 0, 2), (_EQUAL, 1, 0, 10), refuse),
            _argument(1),
            *((_AND, 0, 0, 0xF), (_EQUAL, 2, 0, 1), (_EQUAL, 1, 0, 2 if datagrams else 1), refuse, allow),
        ],
    }
    for name, steps in looked_into.items():
        if name in numbers:
            program += [(_EQUAL, 0, len(steps), numbers[name]), *steps]
    return [*program, allow]


def _unless(*values: int) -> list[Instruction]:
    """Go to the next instruction if one of these is loaded, and skip it if not."""
    last = len(values) - 1
    return [(_EQUAL, last - place, 1 if place == last else 0, value) for place, value in enumerate(values)]


def _argument(which: int, *, high: bool = False) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * which + 4 * high)


def main() -> None:
    """Lock the process in and become a worker: ``enter.py SETTINGS``, which holds no secret."""
    settings = json.loads(sys.argv[1])
    belong_to_node()
    in_force = enter(settings)

    from parties.node.worker import main as work

    work(settings["exchange"], settings["ledger"], in_force)


if __name__ == "__main__":
    main()
