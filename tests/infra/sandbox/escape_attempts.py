"""Ways out of the sandbox: a program that runs in it, and prints for each whether it worked.

Standard input is a JSON object: the path of a readable "secret" file and the "parent" process id, both outside; and
maybe "only", the names of the attempts to make.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys

OUTSIDE = json.load(sys.stdin)

libc = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"


def call(name, *arguments):
    # A function of the C library.
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def kernel(x86_64, aarch64, *arguments):
    # A system call by its number.
    if libc.syscall(aarch64 if ARM else x86_64, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "call")


def fork():
    if os.fork() == 0:
        os._exit(0)


def raw_fork():
    child = libc.fork()
    if child == 0:
        os._exit(0)
    if child < 0:
        raise OSError(ctypes.get_errno(), "fork")


def link_to_secret():
    os.symlink(OUTSIDE["secret"], "link")
    open("link").read()


def hard_link_to_library():
    os.link(os.__file__, "linked")
    open("linked", "a").write("#")


def link_as_scratch_file():
    os.symlink("/box/infra/sandbox/inside/judge.py", "mine")
    open("mine", "w").write("")


def climb():
    open("../" * 9 + OUTSIDE["secret"]).read()


def inherited_descriptors():
    found = []
    for number in range(3, 1024):
        try:
            os.fstat(number)
            found.append(number)
        except OSError:
            pass
    if not found:
        raise OSError("none")


def environment():
    if set(os.environ) <= {"HOME", "TMPDIR", "PYTHONPATH", "PYTHONHASHSEED", "PWD", "LC_CTYPE"}:
        raise OSError("nothing of the parent's")


def raise_limit():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def kill_first_process():
    os.kill(1, signal.SIGKILL)  # is ignored: we are still here, and so is it
    os.kill(1, 0)
    raise OSError("unharmed")


def fill_folder():
    # Returns only if more than the cap fits, counting what is still there.
    for number in range(64):
        with open(f"full{number}", "wb", buffering=0) as file:
            for _ in range(8):
                file.write(bytes(1 << 20))


def socket_of(family, kind=socket.SOCK_STREAM):
    return lambda: socket.socket(family, kind)


attempts = {
    "fork": fork,
    "fork by the C library": raw_fork,
    "clone3": lambda: kernel(435, 435, bytes(88), 88),
    "x32 fork": lambda: kernel(0x40000039, 0x40000039),
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""]),
    "another program": lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}),
    "exec of a shell": lambda: os.execv("/bin/sh", ["sh"]),
    "file outside": lambda: open(OUTSIDE["secret"]).read(),
    "symbolic link": link_to_secret,
    "hard link": hard_link_to_library,
    "link as scratch file": link_as_scratch_file,
    "climbing": climb,
    "accounts": lambda: open("/etc/passwd").read(),
    "home folders": lambda: os.listdir("/home"),
    "installed packages": lambda: os.listdir(f"{os.path.dirname(os.__file__)}/site-packages")[0],
    "overwriting the interpreter": lambda: open(os.__file__, "a"),
    "overwriting the grader": lambda: open("/box/infra/sandbox/inside/judge.py", "w"),
    "making it writable": lambda: os.chmod("/box/infra/sandbox/inside/judge.py", 0o777),
    "replacing the grader": lambda: os.rename("/box", "/gone"),
    "writing to the root": lambda: open("/written", "w"),
    "permissions of a device": lambda: os.chmod("/dev/null", 0o666),  # which are its permissions
    "writing to devices": lambda: open("/dev/written", "w"),
    "shared memory": lambda: open("/dev/shm/written", "w"),
    "processes' files": lambda: os.listdir("/proc"),
    "parent's environment": lambda: open("/proc/1/environ").read(),
    "own memory file": lambda: open("/proc/self/mem", "rb"),
    "kernel's files": lambda: os.listdir("/sys"),
    "environment": environment,
    "inherited descriptors": inherited_descriptors,
    "internet socket": socket_of(socket.AF_INET),
    "datagram socket": socket_of(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix socket": socket_of(socket.AF_UNIX),
    "netlink socket": socket_of(socket.AF_NETLINK, socket.SOCK_RAW),
    "packet socket": socket_of(socket.AF_PACKET, socket.SOCK_RAW),
    "virtual machine socket": socket_of(40),
    "socket pair": socket.socketpair,
    "trace me": lambda: call("ptrace", 0, 0, 0, 0),
    "trace the first process": lambda: call("ptrace", 16, 1, 0, 0),
    "read another's memory": lambda: kernel(310, 270, 1, 0, 0, 0, 0, 0),
    "write another's memory": lambda: kernel(311, 271, 1, 0, 0, 0, 0, 0),
    "another's descriptors": lambda: kernel(434, 434, 1, 0),
    "new user namespace": lambda: call("unshare", 0x10000000),
    "new mount namespace": lambda: call("unshare", 0x00020000),
    "join a namespace": lambda: call("setns", 0, 0),
    "mount": lambda: call("mount", b"none", b"/scratch", b"tmpfs", 0, None),
    "remount": lambda: call("mount", b"none", b"/", None, 32, None),
    "change root": lambda: os.chroot("."),
    "become root": lambda: os.setuid(0),
    "device node": lambda: os.mknod("disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0)),
    "raise a limit": raise_limit,
    "raise the priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
    "real-time scheduling": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "type into the terminal": lambda: fcntl.ioctl(0, 0x5412, b"x"),
    "file locks without number": lambda: fcntl.lockf(open("locked", "w"), fcntl.LOCK_EX),
    "memory files": lambda: os.memfd_create("more"),
    "System V memory": lambda: kernel(29, 194, 0, 4096, 0o1600),
    "extended attributes": lambda: os.setxattr(".", "user.more", b"x"),
    "watches": lambda: kernel(294, 26, 0),
    "io_uring": lambda: kernel(425, 425, 1, bytes(120)),
    "userfaultfd": lambda: kernel(323, 282, 0),
    "bpf": lambda: kernel(321, 280, 0, bytes(8), 8),
    "keyring": lambda: kernel(250, 219, 0, -3, 0),
    "performance events": lambda: kernel(298, 241, bytes(128), 0, -1, -1, 0),
    "file handles": lambda: kernel(304, 265, 0, bytes(8), 0),
    "kernel log": lambda: kernel(103, 116, 3, bytes(64), 64),
    "kill the first process": kill_first_process,
    "kill the parent": lambda: os.kill(OUTSIDE["parent"], 0),
    "filling the disk": fill_folder,
}
for name, attempt in attempts.items():
    if name not in OUTSIDE.get("only", attempts):
        continue
    ctypes.set_errno(0)
    try:
        attempt()
        print(f"{name}\tescaped", flush=True)
    except (OSError, ValueError, IndexError):
        print(f"{name}\tcontained", flush=True)
