"""Check that this machine can build the box: it builds one and tries to escape from it."""

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
ADVICE = {
    "nknown option": BUBBLEWRAP,
    "setting up uid map": APPARMOR,
    "loopback: Failed": APPARMOR,
    "reating new namespace failed": NAMESPACES,
    "No permissions to": NAMESPACES,
}
"""Part of bubblewrap's error message -> advice."""

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
    """Build a box and try to escape from it; once per process.

    Raises:
        SandboxUnavailable: if the box cannot be built or does not contain the program, with advice.
    """
    if not hasattr(os, "pidfd_open") or platform.machine() not in COLUMN:
        system = f"{sys.platform} on {platform.machine()}"
        raise _refusal(f"it needs Linux 5.3 or newer on {' or '.join(COLUMN)}; this is {system}")
    if not shutil.which("bwrap"):
        raise _refusal(BUBBLEWRAP)
    with tempfile.NamedTemporaryFile() as canary:
        source = f"CANARY = {canary.name!r}\n{ATTEMPTS}"
        with Box("program", Limits(), {"program.py": source.encode()}) as box:
            supervise(box)
            message = box.stderr.text().strip()
            if not box.has_started:
                advice = next((advice for part, advice in ADVICE.items() if part in message), "")
                raise _refusal(f"bubblewrap failed: {message or 'out of time'}" + (f". {advice}" if advice else ""))
            escapes = box.outcome().stdout.strip()
    if escapes != "contained":
        raise _refusal(f"a program in it could {escapes}" if escapes else f"its interpreter failed: {message[-500:]}")
    if os.geteuid() == 0 and not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        raise _refusal(
            "root's threads cannot be counted without CONFIG_PROC_CHILDREN in the kernel; run as another user"
        )


def _refusal(reason: str) -> SandboxUnavailable:
    return SandboxUnavailable(f"The sandbox for model-written code cannot be used: {reason}. Nothing was run.")
