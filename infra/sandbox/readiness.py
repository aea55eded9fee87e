"""Whether this machine can build the box: found out by building one and trying to get out of it."""

import functools
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from infra.sandbox.box import Box
from infra.sandbox.limits import Limits, SandboxUnavailable
from infra.sandbox.seccomp import COLUMN
from infra.sandbox.supervision import supervise

BUBBLEWRAP = (
    "bubblewrap 0.8 or newer is needed; on Debian 12, Ubuntu 24.04 and later: "
    "apt-get update && apt-get install bubblewrap"
)
APPARMOR = (
    "AppArmor, in Ubuntu 24.04 and later, closes user namespaces to bubblewrap: give /usr/bin/bwrap a profile that "
    "allows 'userns', or set sysctl kernel.apparmor_restrict_unprivileged_userns=0"
)
NAMESPACES = (
    "user namespaces are closed: set sysctl user.max_user_namespaces (on Debian also "
    "kernel.unprivileged_userns_clone=1); in a container, allow them, in Docker by --security-opt seccomp=unconfined"
)
REASONS = {
    "nknown option": BUBBLEWRAP,
    "setting up uid map": APPARMOR,
    "loopback: Failed": APPARMOR,
    "reating new namespace failed": NAMESPACES,
    "No permissions to": NAMESPACES,
}
"""What bubblewrap says to what helps."""

ATTEMPTS = """
import os, socket

def works(action, *arguments):
    try:
        action(*arguments)
    except (OSError, KeyError):
        return False
    return True

attempts = {
    "fork": lambda: os._exit(0) if os.fork() == 0 else None,
    "open a socket": socket.socket,
    "read a file outside": lambda: open(CANARY).read(),
    "write outside": lambda: open("/written", "w"),
    "see the environment": lambda: os.environ["PATH"],
}
open("mine", "w").write("x")
print(", ".join(name for name, action in attempts.items() if works(action)) or "contained")
"""


@functools.cache
def check_sandbox() -> None:
    """Build a box and try to leave it; once in a process.

    Raises:
        SandboxUnavailable: where that fails, with what helps. There is no other way to run such programs.
    """
    if not hasattr(os, "pidfd_open") or platform.machine() not in COLUMN:
        here = f"{sys.platform} on {platform.machine()}"
        raise _refusal(f"it needs Linux 5.3 or newer on {' or '.join(COLUMN)}; this is {here}")
    if not shutil.which("bwrap"):
        raise _refusal(BUBBLEWRAP)
    with tempfile.NamedTemporaryFile() as canary:
        source = f"CANARY = {canary.name!r}\n{ATTEMPTS}"
        with Box("program", Limits(), {"program.py": source.encode()}) as box:
            supervise(box)
            said = box.stderr.text().strip()
            if not box.has_started:
                help_ = next((reason for sign, reason in REASONS.items() if sign in said), "")
                raise _refusal(f"bubblewrap failed: {said or 'out of time'}" + (f". {help_}" if help_ else ""))
            found = box.outcome().stdout.strip()
    if found != "contained":
        raise _refusal(f"a program in it could {found}" if found else f"its interpreter failed: {said[-500:]}")
    if os.geteuid() == 0 and not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        raise _refusal(
            "root's threads cannot be counted without CONFIG_PROC_CHILDREN in the kernel; run as another user"
        )


def _refusal(why: str) -> SandboxUnavailable:
    return SandboxUnavailable(f"The sandbox for model-written code cannot be used: {why}. Nothing was run.")
