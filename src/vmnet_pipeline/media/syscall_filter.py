"""A seccomp filter (Linux): system calls that a process gives up for good, for all of its threads.

What is not named stays allowed: a decoder's memory, threads and clocks differ by library and version, what it must
not do does not. A refused call fails with EPERM, as for missing rights.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst; numbers of include/uapi/asm-generic/unistd.h (aarch64)
and arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Machine to AUDIT_ARCH of its calls and the column of the tables below.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000  # numbers of a second table of x86-64

# Numbers by machine, None where a machine has no such call.
_PROCESSES = {
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "unshare": (272, 97),
    "setns": (308, 268), "setpgid": (109, 154), "setsid": (112, 157), "setuid": (105, 146), "setgid": (106, 144),
    "setreuid": (113, 145), "setregid": (114, 143), "setresuid": (117, 147), "setresgid": (119, 149),
    "setgroups": (116, 159), "setfsuid": (122, 151), "setfsgid": (123, 152),
}  # fmt: skip
_OTHERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip
_FILES = {
    "creat": (85, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "mknod": (133, None),
    "mknodat": (259, 33), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "truncate": (76, 45), "ftruncate": (77, 46),
    "fallocate": (285, 47), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10),
    "getxattrat": (464, 464), "listxattr": (194, 11), "llistxattr": (195, 12), "flistxattr": (196, 13),
    "listxattrat": (465, 465), "inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
}  # fmt: skip
_NETWORK = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
}  # fmt: skip
_KERNEL = {
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "mount": (165, 40), "umount2": (166, 39), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "open_tree": (428, 428), "open_tree_attr": (467, 467), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "pivot_root": (155, 41), "chroot": (161, 51),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161),
    "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None), "fanotify_init": (300, 262),
    "syslog": (103, 116), "vhangup": (153, 58), "lookup_dcookie": (212, 18),
}  # fmt: skip
GIVEN_UP = (_PROCESSES, _OTHERS, _FILES, _NETWORK, _KERNEL)

# Their arguments lie behind a pointer, where a filter cannot look: libraries take the older call instead.
_UNKNOWN_TO_THE_CALLER = {"clone3": (435, 435), "openat2": (437, 437)}
_ABOUT_A_PROCESS = {
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261), "sched_setaffinity": (203, 122),
}  # fmt: skip
_CAN_MEAN_ITSELF_BY_ZERO = ("prlimit64", "sched_setaffinity")
_CLONE, _CLONE_THREAD = (56, 220), 0x10000
_OPEN, _OPENAT = (2, None), (257, 56)
_OPEN_TO_CHANGE = 0o20001103  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, and the mark of O_TMPFILE
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: signals to others, and news of what they do.
_FCNTL, _FCNTL_OF_SIGNALS = (72, 25), (8, 10, 15, 1024, 1026)
# TIOCSTI, TIOCLINUX, TIOCSPGRP, TIOCSCTTY, FIOSETOWN, SIOCSPGRP: keys typed into a terminal, and signals.
_IOCTL, _IOCTL_OF_OTHERS = (16, 29), (0x5412, 0x541C, 0x5410, 0x540E, 0x8901, 0x8902)

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE, _NO_SUCH_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_SECCOMP, _SET_FILTER, _ALL_THREADS = (317, 277), 1, 1

_Instruction = tuple[int, int, int, int]


def install_filter() -> None:
    """Give up what is named above. Needs `no_new_privs`, or the rights of an administrator.

    Raises:
        OSError: The kernel has no such filters, or does not let this process have one, or the machine is another one.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in build_program(machine, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    heading = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SECCOMP[_ARCHITECTURES[machine][1]])
    if libc.syscall(number, ctypes.c_ulong(_SET_FILTER), ctypes.c_ulong(_ALL_THREADS), heading):
        code = ctypes.get_errno() or errno.EBUSY
        raise OSError(code, os.strerror(code))


def build_program(machine: str, pid: int) -> list[_Instruction]:
    """The filter as instructions (code, steps if so, steps if not, value) of classic BPF."""
    architecture, column = _ARCHITECTURES[machine]
    program = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        program += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    for table in GIVEN_UP:
        program += _refuse_all(table, column, _REFUSE)
    program += _refuse_all(_UNKNOWN_TO_THE_CALLER, column, _NO_SUCH_CALL)
    for name, numbers in _ABOUT_A_PROCESS.items():
        own = (pid, 0) if name in _CAN_MEAN_ITSELF_BY_ZERO else (pid,)
        program += _judge(numbers[column], 0, _JUMP_EQUAL, own, allows=True)
    program += _judge(_CLONE[column], 0, _JUMP_ANY_BIT, (_CLONE_THREAD,), allows=True)
    program += _judge(_OPEN[column], 1, _JUMP_ANY_BIT, (_OPEN_TO_CHANGE,), allows=False)
    program += _judge(_OPENAT[column], 2, _JUMP_ANY_BIT, (_OPEN_TO_CHANGE,), allows=False)
    program += _judge(_FCNTL[column], 1, _JUMP_EQUAL, _FCNTL_OF_SIGNALS, allows=False)
    program += _judge(_IOCTL[column], 1, _JUMP_EQUAL, _IOCTL_OF_OTHERS, allows=False)
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _refuse_all(table: Mapping[str, tuple[int | None, ...]], column: int, how: int) -> Iterable[_Instruction]:
    for numbers in table.values():
        number = numbers[column]
        if number is not None:
            yield from ((_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, how))


def _judge(
    number: int | None, argument: int, test: int, values: tuple[int, ...], *, allows: bool
) -> list[_Instruction]:
    """One call by the low half of one of its arguments: whether it has one of these values, or bits."""
    if number is None:
        return []
    if_so, if_not = (_ALLOW, _REFUSE) if allows else (_REFUSE, _ALLOW)
    tests = [(test, len(values) - place, 0, value) for place, value in enumerate(values)]
    body = [(_LOAD, 0, 0, 16 + 8 * argument), *tests, (_RETURN, 0, 0, if_not), (_RETURN, 0, 0, if_so)]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]
