import json
import math
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from decimal import Decimal
from enum import IntEnum
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import ConfigError, EnvironmentProblem
from infra.sandbox import Limits, SandboxUnavailable, call_function, check_sandbox, run_python
from infra.sandbox.inside.wire import decode, encode
from infra.sandbox.seccomp import COLUMN, filter_program
from infra.sandbox.syscalls import ALLOWED

ROOT = Path(__file__).resolve().parents[3]

# --- ordinary programs


def test_a_program_reads_writes_and_sees_only_its_folder(sandbox):
    source = """
import sys, tempfile
from pathlib import Path
name = input()
Path("out").mkdir()
Path("out/copy.txt").write_bytes(Path("data/in.bin").read_bytes())
tempfile.TemporaryFile().write(b"x")
print(f"hello {name} \u00e9", sorted(str(path) for path in Path(".").rglob("*")), __name__, sys.argv)
print("to stderr", file=sys.stderr)
sys.exit(3)
"""
    done = run_python(source, stdin="Wörld\n", files={"data/in.bin": b"\x00\xff"})
    files = "['data', 'data/in.bin', 'out', 'out/copy.txt', 'program.py']"
    assert done.stdout == f"hello Wörld \u00e9 {files} __main__ ['program.py']\n"
    assert (done.status, done.exit_code, done.stderr) == ("failed", 3, "to stderr\n")


def test_the_standard_library_deep_recursion_and_threads_work(sandbox):
    source = """
import array, base64, bisect, cmath, collections, copy, csv, dataclasses, datetime, decimal, enum, fractions, functools
import hashlib, heapq, io, itertools, json, math, operator, random, re, statistics, string, sys, textwrap, threading
import typing, unittest, uuid, zlib
from concurrent.futures import ThreadPoolExecutor

sys.setrecursionlimit(30_000)
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)

@dataclasses.dataclass
class Point:
    x: int

with ThreadPoolExecutor(8) as pool:
    squares = list(pool.map(lambda x: x * x, range(5)))
print(json.dumps([depth(20_000), squares, Point(3).x, math.comb(50, 25), re.sub("a+", "b", "caat"),
                  hashlib.sha256(b"x").hexdigest()[:6], str(decimal.Decimal("0.1") * 3), [*set("abcdefgh")]]))
"""
    first, second = run_python(source), run_python(source)
    assert first.status == "finished", first
    values = json.loads(first.stdout)
    assert values[:-1] == [20_000, [0, 1, 4, 9, 16], 3, math.comb(50, 25), "cbt", "2d7116", "0.3"]
    assert second.stdout == first.stdout  # the order of sets too


@pytest.mark.parametrize(
    ("source", "status", "exit_code"),
    [
        ("def f(:", "failed", 1),
        ("x = '\udc80'", "failed", 1),
        ("raise ValueError('no')", "failed", 1),
        ("import os; os.abort()", "crashed", -signal.SIGABRT),
        ("import ctypes; ctypes.string_at(0)", "crashed", -signal.SIGSEGV),
    ],
)
def test_programs_that_fail_say_how(sandbox, source, status, exit_code):
    done = run_python(source)
    assert (done.status, done.exit_code) == (status, exit_code), done


def test_limits_and_file_names_are_checked(sandbox):
    for name in ("/etc/passwd", "../up", "a/../../b", ".", "", "program.py", "a\0b"):
        with pytest.raises(ConfigError, match="relative path"):
            run_python("", files={name: b""})
    for wrong in (0, -1, 1.5, True, "8"):
        with pytest.raises(ConfigError, match="cpu_seconds is"):
            Limits(cpu_seconds=wrong)


# --- nothing stays behind


def living(mark: int, *excluded: int) -> bool:
    """Whether any process, but for the excluded, still has the mark, an unusual limit, in its command line."""
    lines = []
    for process in psutil.process_iter(["cmdline"]):
        lines += (process.info["cmdline"] or []) if process.pid not in excluded else []
    return any(f"file_bytes={mark}" in line for line in lines)


def until_gone(mark: int) -> bool:
    deadline = time.monotonic() + 60
    while living(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not living(mark)


def test_no_process_outlives_its_time_or_its_parent(sandbox):
    done = run_python("while True: pass", Limits(wall_seconds=1, file_bytes=7_654_321))
    assert done.status == "time"
    assert until_gone(7_654_321)
    source = "import time; print('up', flush=True); time.sleep(300)"
    script = f"from infra.sandbox import *; run_python({source!r}, Limits(wall_seconds=300, file_bytes=7_654_322))"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while not living(7_654_322, parent.pid):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert until_gone(7_654_322)


# --- where the box cannot be had


def refusal(folder: Path, monkeypatch, bubblewrap: str | None) -> str:
    """What `check_sandbox` says with another bubblewrap first in PATH, a script of Python."""
    if bubblewrap is not None:
        (folder / "bwrap").write_text(f"#!{sys.executable}\nimport os, sys\n{bubblewrap}")
        (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(SandboxUnavailable) as refused:
        check_sandbox.__wrapped__()
    assert isinstance(refused.value, EnvironmentProblem)
    assert "Nothing was run" in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("bubblewrap", "says"),
    [
        (None, "apt-get install bubblewrap"),
        ("sys.exit('bwrap: setting up uid map: Permission denied')", "AppArmor"),
        ("sys.exit('bwrap: Creating new namespace failed: Operation not permitted')", "user namespaces are closed"),
        ("sys.exit('bwrap: Unknown option --disable-userns')", "0.8 or newer"),
        ("os._exit(0)", "bubblewrap failed"),
    ],
)
def test_it_refuses_with_the_way_to_get_it(tmp_path, monkeypatch, bubblewrap, says):
    assert says in refusal(tmp_path, monkeypatch, bubblewrap)


@pytest.mark.parametrize(
    ("left_out", "could"),
    [
        (["--seccomp", 1], "fork, open a socket"),
        (["--remount-ro", 1], "write outside"),
        (["--clearenv", 0], "see the environment"),
    ],
)
def test_a_box_that_lets_something_through_is_refused(sandbox, tmp_path, monkeypatch, left_out, could):
    option, operands = left_out
    real = shutil.which("bwrap")
    wrapper = (
        f"a = sys.argv[1:]\nwhile {option!r} in a: i = a.index({option!r}); del a[i : i + 1 + {operands}]\n"
        f"os.execv({real!r}, [{real!r}, *a])"
    )
    assert f"a program in it could {could}" in refusal(tmp_path, monkeypatch, wrapper)


# --- values

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1])
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.sampled_from([..., int, type(None)])
    | st.builds(range, st.integers(), st.integers(), st.integers(1))
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.integers() | st.text(), inner),
    max_leaves=6,
)


def no_reference(value):
    raise AssertionError(value)


def there_and_back(value):
    return decode(json.loads(json.dumps(encode(value, no_reference))), no_reference)


@settings(max_examples=40)
@given(PLAIN, st.sets(st.integers() | st.text() | st.tuples(st.booleans())))
def test_plain_values_arrive_as_they_were(value, members):
    arrived = there_and_back(value)
    assert repr(arrived) == repr(value)  # of every part the type, NaN and -0.0 too
    for kind in (set, frozenset):
        arrived = there_and_back(kind(members))
        assert type(arrived) is kind
        assert {(type(item), item) for item in arrived} == {(type(item), item) for item in members}


def test_numbers_of_any_length_arrive():
    assert there_and_back([7**9000, -(7**9000)]) == [7**9000, -(7**9000)]  # more digits than int() reads


def test_subclasses_arrive_as_their_base_and_others_as_references():
    class AlwaysEqual(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    class OwnDecimal(Decimal):
        def __eq__(self, other):
            return True

        __hash__ = Decimal.__hash__

    class OwnDictionary(OrderedDict):
        def __eq__(self, other):
            return True

    cases = {IntEnum("Level", {"LOW": 3}).LOW: 3, AlwaysEqual(7): 7, OwnDecimal("1.50"): Decimal("1.50")}
    for value, plain in [*cases.items(), (OwnDictionary(a=1), OrderedDict(a=1))]:
        arrived = there_and_back(value)
        assert type(arrived) is type(plain)
        assert arrived == plain
    assert encode([object()], lambda _: 5) == ["list", [["reference", 5]]]


def test_values_of_calls_equal_those_outside(sandbox):
    source = """
def f(x):
    print("noise")
    return {(1, x): [{x}, {1, 2.5}, 1j, -0.0, 10**30, b"\\x00", None, frozenset({x}), "\\ud800", range(3)]}
"""
    here: dict = {}
    exec(source, here)
    arguments = [(1,), ("text",), (2.5,), (True,), ((1, 2),)]
    calls = call_function(source, "f", arguments)
    assert [repr(call.value) for call in calls] == [repr(here["f"](*one)) for one in arguments]
    failing = call_function(source + "f.g = lambda: 1", "f", [([],), (1, 2)])
    assert ["unhashable" in str(failing[0].error), "positional" in str(failing[1].error)] == [True, True]
    with pytest.raises(TypeError, match="plain data"):
        call_function(source, "f", [(object(),)])


@pytest.mark.parametrize(
    ("program", "errors"),
    [
        ("f = lambda x: 1 // x", [None, "ZeroDivisionError", None]),
        ("import sys\nf = lambda x: sys.exit(x)", ["SystemExit", "SystemExit", "SystemExit"]),
        ("import os\nf = lambda x: x or os._exit(0)", [None, "no answer", "no answer"]),
        ("f = lambda x: iter([x])", ["no plain data"] * 3),
        ("g = 1", ["NameError"] * 3),
        ("f = (", ["SyntaxError"] * 3),
        ("import os\nos._exit(0)", ["no answer: finished"] * 3),
        ("f = lambda x: [0] * 10**9", ["MemoryError"] * 3),
        ("f = lambda x: 'x' * 70_000", ["longer"] * 3),
        ("f = lambda x: 'x' * 2_000_000", ["no answer: output"] * 3),
        ("f = lambda x: (lambda a: a.append(a) or a)([])", ["RecursionError"] * 3),
        (
            "import os\nfor n in range(64):\n  try: os.write(n, b'[[[\\n{}\\n1\\n')\n  except OSError: pass",
            ["no plain"] * 3,
        ),
    ],
)
def test_a_call_without_a_value_says_why(sandbox, program, errors):
    calls = call_function(program, "f", [(1,), (0,), (2,)])
    assert len(calls) == 3
    for call, error in zip(calls, errors, strict=True):
        assert (call.error is None) if error is None else (error in str(call.error)), calls


# --- the filter, by a small interpreter of BPF: the other processor's too


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter returns for a system call."""
    own = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    data = struct.pack("=IIQ6Q", number, architecture or own, 0, *arguments, *[0] * (6 - len(arguments)))
    program = filter_program(machine)
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif code == 0x06:
            return operand
        else:
            at += if_true if (accumulator == operand if code == 0x15 else accumulator & operand) else if_false


ALLOW, KILL, EPERM, ENOTTY, EINVAL, ENOSYS = 0x7FFF0000, 0x80000000, 0x50001, 0x50019, 0x50016, 0x50026


@pytest.mark.parametrize(
    ("machine", "openat", "socket", "clone", "ioctl", "fcntl"),
    [("x86_64", 257, 41, 56, 16, 72), ("aarch64", 56, 198, 220, 29, 25)],
)
def test_the_filter_allows_little(machine, openat, socket, clone, ioctl, fcntl):
    assert verdict(machine, openat) == ALLOW
    assert verdict(machine, openat, architecture=0x40000003) == KILL  # i386
    assert verdict(machine, socket) == ENOSYS
    assert verdict(machine, openat | 0x40000000) == ENOSYS  # x32
    assert verdict(machine, 435) == ENOSYS  # clone3, and what comes later
    assert {verdict(machine, number) for number in range(440, 500)} == {ENOSYS}
    assert verdict(machine, clone, 0x3D0F00) == ALLOW  # a thread of glibc's
    assert verdict(machine, clone, 0x1200011) == EPERM  # its fork
    assert verdict(machine, clone, 0x10010000) == EPERM  # a thread in a new user namespace
    assert verdict(machine, ioctl, 0, 0x5401) == ALLOW
    assert verdict(machine, ioctl, 0, 0x5412) == ENOTTY
    assert verdict(machine, fcntl, 3, 1030) == ALLOW
    assert verdict(machine, fcntl, 3, 6) == EINVAL


@pytest.mark.parametrize(
    ("machine", "header"), [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")]
)
def test_the_numbers_are_the_kernel_headers(machine, header):
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"no {path}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)$", path.read_text(), re.MULTILINE)
    known = {name: int(number) for name, number in found}
    known["newfstatat"] = known.get("newfstatat", known.get("fstatat", -1))
    ours = {name: numbers[COLUMN[machine]] for name, numbers in ALLOWED.items() if numbers[COLUMN[machine]] is not None}
    assert ours == {name: known[name] for name in ours}
