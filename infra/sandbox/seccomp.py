"""The seccomp filter of the sandbox: a classic BPF program over `syscalls.ALLOWED`, for `bwrap --seccomp`.

Written without libseccomp, whose Python binding would add a dependency on a system library for a list of comparisons
(see docs/decisions.md). Format: struct sock_filter of linux/filter.h, over struct seccomp_data
of linux/seccomp.h.
"""

import errno
import platform
import struct

from infra.sandbox.syscalls import AARCH64, ALLOWED, CLONE, FCNTL, IOCTL, X86_64

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": X86_64, "aarch64": AARCH64}

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in seccomp_data, little-endian
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000

CLONE_THREAD = 0x00010000
CLONE_NAMESPACES = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
# Terminal attributes and size (isatty), available bytes, non-blocking, close-on-exec; not TIOCSTI, which fakes input.
IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# Duplicate, descriptor and status flags; not locks, whose number has no limit, nor larger pipes.
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)


def filter_program(machine: str = "") -> bytes:
    """Filter program for this processor, or for `machine` ("x86_64" or "aarch64").

    Raises:
        KeyError: for another processor.
    """
    machine = machine or platform.machine()
    column = COLUMN[machine]
    code = [
        _step(LOAD, ARCHITECTURE),
        _step(EQUAL, AUDIT_ARCH[machine], 1, 0),  # 32-bit calls have other numbers
        _step(RETURN, KILL),
        _step(LOAD, NUMBER),
    ]
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            code += [_step(EQUAL, number, 0, 1), _step(RETURN, ALLOW)]
    code += _only_with(IOCTL[column], IOCTL_REQUESTS, errno.ENOTTY)
    code += _only_with(FCNTL[column], FCNTL_COMMANDS, errno.EINVAL)
    code += _threads_only(CLONE[column])
    # "Not implemented" lets the C library fall back to older calls, such as from clone3 to clone.
    return b"".join([*code, _step(RETURN, ERRNO | errno.ENOSYS)])


def _only_with(number: int, accepted: tuple[int, ...], error: int) -> list[bytes]:
    """Allow call `number` if its second argument is one of `accepted`."""
    choices = [step for value in accepted for step in (_step(EQUAL, value, 0, 1), _step(RETURN, ALLOW))]
    body = [_step(LOAD, SECOND_ARGUMENT), *choices, _step(RETURN, ERRNO | error)]
    return [_step(EQUAL, number, 0, len(body)), *body]


def _threads_only(number: int) -> list[bytes]:
    """Allow clone for a thread; glibc's fork is clone without CLONE_THREAD."""
    refuse = _step(RETURN, ERRNO | errno.EPERM)
    body = [
        _step(LOAD, FIRST_ARGUMENT),
        _step(ANY_BIT, CLONE_NAMESPACES, 2, 0),
        _step(ANY_BIT, CLONE_THREAD, 0, 1),
        _step(RETURN, ALLOW),
        refuse,
    ]
    return [_step(EQUAL, number, 0, len(body)), *body]


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; the jumps are relative to the next one."""
    return struct.pack("=HBBI", code, if_true, if_false, operand)
