"""Limits that the kernel enforces; the process sets them before it runs any untrusted code.

Hard limits are set with the soft ones, and no process in the box has the right to raise them.
"""

import os
import resource
import sys


def confine() -> list[str]:
    """Set the limits in the first argument and report that the box has started; returns the remaining arguments."""
    limits = {name: int(value) for name, value in (part.split("=") for part in sys.argv[1].split(","))}
    started = int(sys.argv[2])
    os.write(started, b"started")
    os.close(started)
    caps = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NPROC: limits["processes"] + 1,  # plus the box's first process, which only waits
        resource.RLIMIT_NOFILE: 64,
        # A core_pattern that is a pipe ignores 0: at each crash a program of the host would run as root and write the
        # dump to disk. With 1 the kernel writes none at all (fs/coredump.c).
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, cap in caps.items():
        hard = resource.getrlimit(kind)[1]
        cap = cap if hard == resource.RLIM_INFINITY else min(cap, hard)
        resource.setrlimit(kind, (cap, cap))
    return sys.argv[3:]
