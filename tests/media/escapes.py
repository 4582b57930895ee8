"""What somebody who takes a decoder over would try; imported by its name in the process that is tried."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pickle
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from vmnet_pipeline.media.replies import pack_reply

libc = ctypes.CDLL(None, use_errno=True)
SYSTEM_CALLS = {"x86_64": 0, "aarch64": 1}


def check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def call(numbers: tuple[int, int], *values: int) -> None:
    number = numbers[SYSTEM_CALLS[platform.machine()]]
    check(libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(value) for value in values)))


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def ask_by_name() -> None:
    """A packet to a name server, as one who carries secrets out would send."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.sendto(b"x", ("127.0.0.1", 53))


def tell_local_service(place: str) -> None:
    """A packet to a socket of this machine, as the system's log has one; an end of a pair may send anywhere."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pair[0], pair[1]:
        pair[0].sendto(b"x", place)


def watch(folder: str) -> None:
    """Hear of every name that is made in a folder."""
    libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    check(handle := libc.inotify_init1(0))
    try:
        check(libc.inotify_add_watch(handle, folder.encode(), 0x100))
    finally:
        os.close(handle)


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def execute() -> None:
    """Replace this very process; on success there is no answer at all."""
    os.execv("/bin/true", ["true"])  # noqa: S606 - so it is


def open_temporary(folder: str) -> None:
    os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))


def signal_by_descriptor() -> None:
    signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)


def signal_by_pipe() -> None:
    source, sink = os.pipe()
    try:
        fcntl.fcntl(source, fcntl.F_SETOWN, os.getppid())
    finally:
        os.close(source)
        os.close(sink)


def trace() -> None:
    """Seize, which stops nothing; the end of this process lets go."""
    check(libc.ptrace(0x4206, ctypes.c_long(os.getppid()), None, None))


def read_memory() -> None:
    name = f"/proc/{os.getppid()}/mem"
    os.close(os.open(name, os.O_RDONLY))


def change_own_code() -> None:
    name = "/proc/self/mem"
    os.close(os.open(name, os.O_RDWR))


def set_up_ring() -> None:
    settings = ctypes.create_string_buffer(120)
    call((425, 425), 1, ctypes.addressof(settings))


def get_ways(folder: str, port: int) -> dict:
    """Name to attempt; each returns if it has come through."""
    old, new, parent = f"{folder}/old.txt", f"{folder}/new.txt", os.getppid()
    return {
        "connect": lambda: connect(port),
        "udp": ask_by_name,
        "unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "local service": lambda: tell_local_service(f"{folder}/log"),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "open for writing": lambda: Path(old).open("r+").close(),
        "append": lambda: Path(old).open("a").close(),
        "new file": lambda: Path(new).write_text("x"),
        "nameless file": lambda: open_temporary(folder),
        "remove": lambda: Path(old).unlink(),
        "rename": lambda: Path(old).rename(new),
        "folder": lambda: Path(new).mkdir(),
        "link": lambda: os.link(old, new),
        "symbolic link": lambda: Path(new).symlink_to(old),
        "pipe": lambda: os.mkfifo(new),
        "truncate": lambda: os.truncate(old, 0),
        "rights": lambda: Path(old).chmod(0o777),
        "times": lambda: os.utime(old),
        "attribute": lambda: os.setxattr(old, "user.a", b"1"),
        "fork": fork,
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "program": lambda: subprocess.run(["/bin/true"], check=True),
        "exec": execute,
        "ptrace": trace,
        "memory of the parent": read_memory,
        "own memory as a file": change_own_code,
        "environment of the parent": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "pages of the parent": lambda: call((310, 270), parent, 0, 0, 0, 0, 0),  # process_vm_readv
        "signal": lambda: os.kill(parent, 0),
        "signal to the group": lambda: os.killpg(os.getpgid(parent), 0),
        "signal to everyone": lambda: os.kill(-1, 0),
        "signal by descriptor": signal_by_descriptor,
        "signal by pipe": signal_by_pipe,
        "limits of the parent": lambda: resource.prlimit(parent, resource.RLIMIT_MSGQUEUE, (0, 0)),
        "keys typed into a terminal": lambda: fcntl.ioctl(0, 0x5412, b"x"),
        "io_uring": set_up_ring,
        "shared memory": lambda: call((29, 194), 0x7A7A7A7A, 4096, 0),
        "namespace": lambda: call((272, 97), 0x10000000),
        "read a secret": lambda: Path(f"{folder}/secret.txt").read_text(),
        "read an attribute": lambda: os.listxattr(old),
        "watch a folder": lambda: watch(folder),
        "command line of the parent": lambda: Path(f"/proc/{parent}/cmdline").read_bytes(),
        "list processes": lambda: list(Path("/proc").iterdir()),
        "list connections": lambda: Path("/proc/net/tcp").read_text(),
        "list a folder": lambda: list(Path(folder).iterdir()),
    }


def try_ways(path: str, *, port: int, names: list[str] | None = None) -> dict[str, str]:
    """What came of each attempt: `through`, or the name of the error."""
    ways = get_ways(str(Path(path).parent), port)
    return {name: _try(ways[name]) for name in names or ways}


def _try(way) -> str:
    try:
        way()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "through"


def use_what_is_left(path: str) -> list[str]:
    """Threads, memory, pipes, clocks and code of libraries are what decoders need."""
    done = []
    threading.Thread(target=lambda: done.append("thread")).start()
    mmap.mmap(-1, 1 << 20).close()
    for handle in os.pipe():
        os.close(handle)
    import colorsys
    import wave

    os.kill(os.getpid(), 0)
    with Path("/proc/self/statm").open() as file:
        done.append(file.name)
    return [*done, colorsys.__name__, wave.__name__]


def list_variables(path: str) -> list[str]:
    return sorted(os.environ)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def answer_with_a_pickle(path: str, *, mark: str) -> None:
    Connection(int(sys.argv[1])).send_bytes(pickle.dumps(Bomb(mark)))
    os._exit(0)


def answer_with(path: str, *, reason: str, message: str) -> None:
    Connection(int(sys.argv[1])).send_bytes(pack_reply((reason, message, None)))
    os._exit(0)


def answer_with_noise(path: str) -> None:
    Connection(int(sys.argv[1])).send_bytes(os.urandom(1000))
    os._exit(0)


def promise_much(path: str) -> None:
    os.write(int(sys.argv[1]), struct.pack("!i", -1) + struct.pack("!Q", 1 << 60))
    signal.pause()


def begin_and_stop(path: str) -> None:
    os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"x")
    signal.pause()
