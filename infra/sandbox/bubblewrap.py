"""The command line of bubblewrap, which defines the box.

New namespaces of every kind, no network except an unused loopback, no environment, no capabilities, no /proc, no /sys,
no devices except null, zero and random; the interpreter's own libraries read-only, without site-packages; one writable
folder in memory, of limited size.
"""

import functools
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.sandbox.limits import Limits

SCRATCH = "/scratch"
INSIDE = "infra/sandbox/inside"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


def box_command(
    module: str, arguments: Sequence[str], limits: Limits, files: Mapping[str, int], seccomp: int, info: int
) -> list[str]:
    """Command that runs a module of `inside` in a new box.

    Args:
        module: name of the module.
        arguments: its command-line arguments.
        limits: caps on the box.
        files: file name in the scratch folder -> descriptor with the content.
        seccomp: descriptor with the filter program.
        info: descriptor to which bubblewrap writes the process id of the box as JSON.
    """
    command = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "box", *_environment()]
    command += _read_only()
    command += ["--size", str(limits.file_bytes), "--tmpfs", SCRATCH, "--chdir", SCRATCH]
    for name, descriptor in files.items():
        command += ["--file", str(descriptor), f"{SCRATCH}/{name}"]
    command += ["--remount-ro", "/", "--seccomp", str(seccomp), "--info-fd", str(info), "--"]
    python = [_interpreter(), "-s", "-S", "-P", "-B", "-X", "utf8"]
    return [*command, *python, f"/box/{INSIDE}/{module}.py", *arguments]


def _environment() -> list[str]:
    """Nothing of this process's environment; a fixed hash seed makes the order of sets, and so scores, reproducible."""
    variables = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "PYTHONPATH": "/box", "PYTHONHASHSEED": "0"}
    return ["--clearenv", *(part for name, value in variables.items() for part in ("--setenv", name, value))]


def _interpreter() -> str:
    """Real path of the interpreter that the virtual environment is based on."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


@functools.cache
def _read_only() -> tuple[str, ...]:
    """Mounts of the interpreter, its libraries and `inside`, then empty folders mounted over installed packages."""
    libraries = (f"{sys.base_prefix}/lib", sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    own = [os.path.realpath(path) for path in libraries]
    mounts: list[str] = []
    for path in dict.fromkeys([*SYSTEM_LIBRARIES, *own, _interpreter()]):
        link = Path(path).is_symlink()  # /lib is usr/lib almost everywhere
        mounts += ["--symlink", str(Path(path).readlink()), path] if link else ["--ro-bind-try", path, path]
    mounts += ["--ro-bind", str(Path(__file__).parent / "inside"), f"/box/{INSIDE}"]
    for device in filter(os.path.exists, DEVICES):  # read-only: the owner of a device could change its permissions
        mounts += ["--dev-bind", device, device, "--remount-ro", device]
    for library in dict.fromkeys([*own, "/usr/lib/python3"]):
        for packages in (f"{library}/site-packages", f"{library}/dist-packages"):
            if Path(packages).is_dir():
                mounts += ["--tmpfs", packages, "--remount-ro", packages]
    return tuple(mounts)
