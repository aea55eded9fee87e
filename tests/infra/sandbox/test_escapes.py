"""Attempts to leave the box or to exhaust the machine from inside, as this user and as an ordinary one."""

import dataclasses
import json
import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.sandbox import Limits, Outcome, run_python

ROOT = Path(__file__).resolve().parents[3]
ATTEMPTS = Path(__file__).with_name("escape_attempts.py").read_text()
NOBODY = 65534

# In a process of another user. Standard input is [[source, limits, its standard input], ...].
AS_USER = """
import dataclasses, json, sys
from infra.sandbox import Limits, run_python
outcomes = [run_python(source, Limits(**limits), stdin) for source, limits, stdin in json.load(sys.stdin)]
print(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes]))
"""

SHORT = Limits(cpu_seconds=1, memory_bytes=96 << 20, output_bytes=10_000, file_bytes=4 << 20)

BOMBS: dict[str, tuple[str, Limits, set[str]]] = {
    "memory": ("x = []\nwhile True: x.append(bytearray(1 << 20))", SHORT, {"memory"}),
    "big number": ("x = 3\nwhile True: x = x ** 3", SHORT, {"time", "memory"}),
    "processes": ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", SHORT, {"time"}),
    "threads": (
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True:\n  threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        SHORT,
        # Root is stopped by the watch, which a busy machine may delay until memory is used up; a user by the kernel.
        {"processes", "failed", "memory"},
    ),
    "output": ("while True: print('x' * 1000)", SHORT, {"output"}),
    "errors": ("import os\nwhile True: os.write(2, bytes(1000))", SHORT, {"output"}),
    "files": ("n = 0\nwhile True:\n  open(f'{n}', 'w').close()\n  n += 1", Limits(), {"files"}),
    "links": ("import os\nn = 0\nwhile True:\n  os.symlink('x', f'{n}')\n  n += 1", Limits(), {"files"}),
    "caught signals": (
        "import signal\n"
        "for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "  signal.signal(number, lambda *_: None)\n"
        "while True:\n"
        "  try:\n"
        "    while True: pass\n"
        "  except BaseException: pass",
        SHORT,
        {"time"},
    ),
    "sleep": (
        "import os, time\nfor number in range(3): os.close(number)\nwhile True: time.sleep(1)",
        Limits(wall_seconds=1),
        {"time"},
    ),
    "end of the first process": ("import os\nos.kill(1, 9)\nos.kill(-1, 9)", SHORT, {"failed"}),
}
FOR_BOTH = ("processes", "threads", "files", "caught signals")

CLOSED_BY_THE_FILTER = ["internet socket", "unix socket", "netlink socket", "socket pair", "memory files", "watches"]


def as_this_user(programs: list[tuple[str, Limits, str]]) -> list[Outcome]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda program: run_python(*program), programs))


def as_ordinary_user(programs: list[tuple[str, Limits, str]]) -> list[Outcome]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; these tests run as an ordinary one already")
    run = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "capture_output": True, "text": True, "cwd": "/"}
    python = next((path for path in (os.path.realpath(sys.executable), "/usr/bin/python3") if _starts(path, run)), None)
    if python is None:
        pytest.skip("no Python 3.11 or newer that an ordinary user can run")
    ask = json.dumps([[source, dataclasses.asdict(limits), stdin] for source, limits, stdin in programs])
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        Path(folder).chmod(0o755)
        for package in ("infra/sandbox", "data_schemas"):
            shutil.copytree(ROOT / package, Path(folder) / package)
        variables = {"PYTHONPATH": folder, "PATH": os.environ["PATH"]}
        done = subprocess.run([python, "-c", AS_USER], input=ask, env=variables, **run)
    if "SandboxUnavailable" in done.stderr and not os.environ.get("CI_NEEDS_SANDBOX"):
        pytest.skip(f"an ordinary user gets no sandbox here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return [Outcome(**fields) for fields in json.loads(done.stdout)]


def _starts(python: str, run: dict) -> bool:
    try:
        version = "import sys; sys.exit(sys.version_info < (3, 11))"
        return subprocess.run([python, "-c", version], **run).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module", params=[as_this_user, as_ordinary_user])
def outcomes(request, sandbox) -> dict[str, Outcome]:
    """Of all attempts and bombs, each in a box of its own."""
    bombs = {name: bomb for name, bomb in BOMBS.items() if request.param is as_this_user or name in FOR_BOTH}
    with tempfile.NamedTemporaryFile() as secret:
        Path(secret.name).chmod(0o644)  # for any user, outside
        given = json.dumps({"secret": secret.name, "parent": os.getpid()})
        programs = [(ATTEMPTS, Limits(), given), *((source, limits, "") for source, limits, _ in bombs.values())]
        return dict(zip(["attempts", *bombs], request.param(programs), strict=True))


def test_no_attempt_to_get_out_works(outcomes):
    attempts = outcomes["attempts"]
    assert attempts.status == "finished", attempts
    found = dict(line.split("\t") for line in attempts.stdout.splitlines())
    assert len(found) > 60
    assert {name for name, what in found.items() if what != "contained"} == set()


def test_bombs_end_by_their_limit(outcomes):
    for name, (_, limits, accepted) in BOMBS.items():
        if outcome := outcomes.get(name):
            assert outcome.status in accepted, (name, outcome)
            assert len(outcome.stdout) <= limits.output_bytes
            assert len(outcome.stderr) <= limits.output_bytes


def test_the_attempts_are_real_ones(sandbox, monkeypatch):
    """Without the filter, and only without it, what it closes is open."""
    monkeypatch.setattr("infra.sandbox.box.filter_program", lambda: struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))
    done = run_python(ATTEMPTS, stdin=json.dumps({"secret": "", "parent": 0, "only": CLOSED_BY_THE_FILTER}))
    assert done.stdout == "".join(f"{name}\tescaped\n" for name in CLOSED_BY_THE_FILTER)


def test_a_crash_leaves_no_memory_on_the_disk(sandbox):
    """A core_pattern that is a pipe is run for a limit of 0 too, and for 1 nothing is."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == 0:
        pytest.skip("a limit of 0 cannot be raised")
    assert run_python("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))").stdout == "(1, 1)\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 machine code")
def test_calls_of_another_architecture_end_the_program(sandbox):
    """The numbers of 32-bit calls mean other calls: `int 0x80` with 2 is fork."""
    source = """
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
at = libc.mmap(None, 4096, 7, 0x22, -1, 0)
ctypes.memmove(at, bytes.fromhex("b802000000cd80c3"), 8)
print("up", flush=True)
print("forked", ctypes.CFUNCTYPE(ctypes.c_long)(at)(), flush=True)
"""
    done = run_python(source)
    assert (done.status, done.exit_code, done.stdout) == ("crashed", -signal.SIGSYS, "up\n")
