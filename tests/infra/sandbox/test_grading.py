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


def test_tests_and_candidates_exchange_values_of_the_standard_library():
    program = """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple
Point = namedtuple("Point", "x y")
class Segment(NamedTuple):
    start: Point
    end: Point
    def length(self): return abs(self.end.x - self.start.x)
def vat(price): return (price * Decimal("0.19")).quantize(Decimal("0.01"))
def half(x): return Fraction(x) / 2
def next_day(day): return day + timedelta(days=1)
def at_noon(day): return datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc)
def rotate(items, n):
    assert isinstance(items, deque)
    items.rotate(n)
    return items
def count(text): return Counter(text)
def ordered(pairs): return OrderedDict(pairs)
def group(words):
    groups = defaultdict(list)
    for word in words: groups[word[0]].append(word)
    return groups
def missing(groups): return groups["none"]
def middle(a, b):
    assert isinstance(a, Point) and isinstance(b, Point)
    return Point((a.x + b.x) / 2, (a.y + b.y) / 2)
def segment(a, b): return Segment(a, b)
def length(segment): return segment.length()
def keys(table): return table.keys()
def sums(numbers): return complex(sum(numbers), 1), bytes(numbers), frozenset(numbers), range(len(numbers))
"""
    tests = """
assert vat(Decimal("9.99")) == Decimal("1.90") and isinstance(vat(Decimal(1)), Decimal)
assert vat(Decimal("9.99")) != Decimal("1.91")
assert half(3) == Fraction(3, 2) and half(Fraction(1, 3)) + 1 == Fraction(7, 6)
assert next_day(date(2024, 2, 28)) == date(2024, 2, 29)
assert at_noon(date(2024, 1, 1)) - datetime(2024, 1, 1, tzinfo=timezone.utc) == timedelta(hours=12)
assert rotate(deque([1, 2, 3]), 1) == deque([3, 1, 2]) != deque([1, 2, 3])
assert count("aab") == Counter(a=2, b=1) and count("aab").most_common(1) == [("a", 2)] and count("a")["z"] == 0
assert ordered([("b", 1), ("a", 2)]) == OrderedDict([("b", 1), ("a", 2)])
assert ordered([("b", 1), ("a", 2)]) != OrderedDict([("a", 2), ("b", 1)])
assert group(["ab", "b", "a"]) == {"a": ["ab", "a"], "b": ["b"]}
assert missing(defaultdict(int)) == 0
p = middle(Point(0, 0), Point(2, 4))
assert p == (1, 2) and p.y == 2
assert length(segment(Point(0, 0), Point(5, 0))) == 5
assert keys({"a": 1}) == {"a"}
assert sums([1, 2]) == (3 + 1j, b"\\x01\\x02", frozenset({1, 2}), range(2))
"""
    names = [
        "Point", "vat", "half", "next_day", "at_noon", "rotate", "count", "ordered", "group", "missing", "middle",
        "segment", "length", "keys", "sums",
    ]  # fmt: skip
    context = program.partition("Point =")[0]
    verdict = run_tests(program, tests, names, context=context)
    assert verdict.passed, verdict


STANDARD_FORGERIES = {
    "a decimal that equals everything": (
        "from decimal import Decimal\nclass D(Decimal):\n  __eq__ = __sub__ = lambda *_: True\n"
        "  __hash__ = Decimal.__hash__\nf = lambda x: D(0)"
    ),
    "replaces the class": (
        "import decimal\nclass D:\n  def __init__(self, *_): pass\n  __eq__ = lambda *_: True\n"
        "  __str__ = lambda _: 'x'\ndecimal.Decimal = D\nf = lambda x: D()"
    ),
    "a named tuple that equals everything": (
        "from typing import NamedTuple\nclass P(NamedTuple):\n  x: int\n  __eq__ = lambda *_: True\nf = lambda x: P(0)"
    ),
    "a dictionary with every key": "from collections import defaultdict\nf = lambda x: defaultdict(lambda: 2)",
    "a tag that names other code": (
        "import os, json\ndef f(x):\n  for n in range(3, 64):\n    try: os.write(n, json.dumps(['value', ['system', "
        "'true']]).encode() + b'\\n')\n    except OSError: pass"
    ),
    "a decimal that takes forever": "from decimal import Decimal\nf = lambda x: Decimal('1E+999999999')",
}


def test_no_forgery_by_values_of_the_standard_library_passes():
    tests = "from decimal import Decimal\nassert f(1) == Decimal(2)\nassert int(f(1)) == 2"
    common = {"tests": tests, "names": ["f"], "limits": Limits(wall_seconds=5)}
    verdicts = judge_all([{"program": program, **common} for program in STANDARD_FORGERIES.values()])
    assert {name for name, verdict in zip(STANDARD_FORGERIES, verdicts, strict=True) if verdict.passed} == set()
    assert run_tests("from decimal import Decimal\nf = lambda x: Decimal(2)", tests, ["f"]).passed
