"""Verdicts, of candidates that try to get one that they did not earn too.

Those of the data sets' own solutions: `tests/stages/benchmark/tasks/code/test_problems.py`.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.sandbox import Limits, Verdict, call_function, run_tests

pytestmark = pytest.mark.usefixtures("sandbox")


def judge_all(tasks: list[dict]) -> list[Verdict]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda task: run_tests(**task), tasks))


TESTS = """
def check(candidate):
    assert candidate(1) == 2, "one"
    assert abs(candidate(5) - 6) < 1e-6
    assert isinstance(candidate(9), int)
    assert set([candidate(7)]) == {8}

check(f)
"""

FORGERIES = {
    "ends at import": "import os\nos._exit(0)",
    "ends in the call": "import os\nf = lambda x: os._exit(0)",
    "exits": "f = lambda x: exit(0)",
    "prints the marker": "print('[true, \"passed\"]')\nf = lambda x: print('passed') or 0",
    "writes the verdict everywhere": (
        "import os\nfor n in range(64):\n  try: os.write(n, b'[true, \"passed\"]\\n')\n  except OSError: pass\n"
        "f = lambda x: 0"
    ),
    "answers for the judge": (
        "import os\nfor n in range(64):\n  try: os.write(n, b'[\"value\", null]\\n' * 9)\n  except OSError: pass\n"
        "f = lambda x: 0"
    ),
    "deep nonsense": (
        "import os\ndef f(x):\n  for n in range(3, 64):\n    try: os.write(n, b'[' * 60_000 + b'\\n')\n"
        "    except OSError: pass"
    ),
    "replaces builtins": (
        "import builtins\nbuiltins.abs = builtins.isinstance = builtins.set = lambda *_: 0\n"
        "builtins.AssertionError = ZeroDivisionError\nf = lambda x: 0"
    ),
    "defines what the tests use": "check = lambda f: None\nabs = set = isinstance = lambda *_: 0\nf = lambda x: 2",
    "equals everything": (
        "class Any(int):\n  __eq__ = __lt__ = __hash__ = __bool__ = lambda *_: True\n"
        "  __sub__ = __abs__ = lambda *_: Any()\nf = lambda x: Any()"
    ),
    "equals everything, no number": (
        "class Any:\n  __eq__ = __lt__ = lambda *_: True\n  __hash__ = lambda _: 8\n"
        "  __sub__ = __abs__ = lambda s, *_: s\nf = lambda x: Any()"
    ),
    "raises what ends a test": "def f(x): raise SystemExit(0)",
    "raises a class of its own": "class E(BaseException): pass\ndef f(x): raise E",
    "reads the tests": "open('/scratch/tests.json')\nf = lambda x: x + 1",
    "changes the judge": "import infra.sandbox.inside.judge as j\nj.judge = lambda *_: (True, '')\nf = lambda x: 0",
    "never answers": "import time\nf = lambda x: time.sleep(99)",
    "too much": "f = lambda x: 'x' * 3_000_000",
    "is not there": "g = 1",
    "is no function": "f = 2",
}


def test_no_forgery_passes():
    common = {"tests": TESTS, "names": ["f"], "limits": Limits(wall_seconds=5)}
    verdicts = judge_all([{"program": program, **common} for program in FORGERIES.values()])
    assert {name for name, verdict in zip(FORGERIES, verdicts, strict=True) if verdict.passed} == set()


def test_a_call_cannot_end_a_loop_of_the_tests():
    tests = "def holds(x):\n  assert f(x) == x + 1\n  return True\nassert all(map(holds, range(9)))"
    verdict = run_tests("def f(x):\n  raise StopIteration", tests, ["f"])
    assert (verdict.passed, verdict.reason[:44]) == (False, "CandidateError: a call raised StopIteration ")


def test_what_a_candidate_says_can_be_printed_and_stored():
    hostile = "'\\ud800\\x1b[2J\\n\\0 caf\\xe9'"
    for program in (f"def f(x): raise ValueError({hostile})", f"raise ValueError({hostile})"):
        reason = run_tests(program, "f(1)", ["f"]).reason
        assert reason.startswith("ValueError: ValueError: ??[2J ? caf\u00e9")
        (call,) = call_function(program, "f", [(1,)])
        assert call.error == "ValueError: ??[2J ? caf\u00e9"


def test_an_honest_candidate_passes_whatever_else_it_does():
    program = "print('x')\ndef check(f): assert False\ndef f(x): return x + 1"
    verdict = run_tests(program, TESTS, ["f"])
    assert (verdict.passed, verdict.reason, verdict.candidate.status) == (True, "passed", "finished")
    assert verdict.candidate.stdout == "x\n"


def test_verdicts_say_which_assertion_failed_or_what_ended_it():
    cases = {
        "f = lambda x: 2": "test line 4: assert abs(",
        "f = (": "SyntaxError",
        "g = 1": "NameError: the program defines no f",
        "def f(x):\n  while True: pass": "(the candidate: time)",
    }
    common = {"names": ["f"], "limits": Limits(cpu_seconds=1)}
    tasks = [{"program": program, "tests": TESTS, **common} for program in cases]
    *verdicts, endless = judge_all([*tasks, {"program": "f = 1", "tests": "while True: pass", **common}])
    for says, verdict in zip(cases.values(), verdicts, strict=True):
        assert says in verdict.reason
    assert "the tests did not end: time" in endless.reason


def test_tests_meet_exceptions_iterators_and_objects_as_in_one_interpreter():
    program = """
class Node:
    def __init__(self, value): self.value, self.left = value, None
    def total(self): return self.value + (self.left.total() if self.left else 0)
def total(nodes): return sum(node.total() for node in nodes)
class Own(ValueError): pass
def fail(x): raise Own(x)
def count():
    n = 0
    while True: yield (n := n + 1)
def adder(n, *, by=1): return lambda x: x + n * by
"""
    tests = """
root = Node(1)
root.left = Node(2)
assert root.total() == 3 and root.left.value == 2
assert total([root, Node(math.inf)]) == math.inf
assert root != Node(1) and root == root
try:
    fail("why")
except ValueError as error:
    assert "why" in str(error)
else:
    assert False
numbers = count()
assert [next(numbers), next(numbers)] == [1, 2]
assert next(iter(count())) == 1
assert adder(2, by=3)(1) == 7
try:
    fail(lambda: 0)
except TypeError:
    pass
else:
    assert False
"""
    verdict = run_tests(program, tests, ["Node", "total", "fail", "count", "adder"], context="import math")
    assert verdict.passed, verdict
