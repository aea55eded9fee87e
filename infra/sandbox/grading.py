"""Grading by tests that are code (`assert f(1) == 2`, `check(candidate)`), with a verdict that it cannot forge.

Two boxes: the candidate's, which answers calls, and the judge's, which runs the tests with proxies for the candidate's
names. They share two pipes and nothing else. In one interpreter a candidate could end the process with code 0, print
the pass marker, replace `check`, `isinstance` or `AssertionError`, or return an object that equals everything; from its
own box it can only answer calls, with values that arrive as plain data: built-in types and those of the standard
library in `inside/standard_values.py` (Decimal, Fraction, dates, deque, Counter, named tuples, ...).

Differences from one interpreter: arguments are passed by value, so a test does not see a candidate modify its list; a
function of the test cannot be passed; objects of the candidate's classes are equal only to themselves; a call that
raises StopIteration does not end a loop of the test.
"""

import contextlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass

from infra.sandbox.box import Box, Stream
from infra.sandbox.limits import Limits, Outcome
from infra.sandbox.readiness import check_sandbox
from infra.sandbox.running import PROGRAM, encode_source, one_line
from infra.sandbox.supervision import supervise


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate passed its tests."""

    passed: bool
    reason: str
    """"passed", or the failure in one line."""
    candidate: Outcome
    """Outcome of the candidate's box, with its output and the limit that it exceeded, if any."""


def run_tests(
    program: str, tests: str, names: Collection[str], limits: Limits | None = None, context: str = ""
) -> Verdict:
    """Run tests against a candidate program.

    Args:
        program: code of the candidate.
        tests: code of the task, which raises nothing if the candidate is right.
        names: functions and classes under test, which `tests` takes from the program.
        limits: caps on each of the two boxes.
        context: trusted code that runs before `tests` in the same namespace, such as imports and helpers of the task;
            `names` replace its definitions.

    Raises:
        SandboxUnavailable: if the machine cannot build the box.
    """
    check_sandbox()
    limits = limits or Limits()
    task = json.dumps({"tests": tests, "names": list(names), "context": context}).encode()
    verdict = Stream(limits.output_bytes)
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as ends:
            request_reader, request_writer = _pipe(ends)
            reply_reader, reply_writer = _pipe(ends)
            candidate_ends = (request_reader, reply_writer)
            source = {PROGRAM: encode_source(program)}
            candidate = stack.enter_context(
                Box("candidate", limits, source, b"", _text(*candidate_ends), candidate_ends)
            )
            judge_ends = (request_writer, reply_reader, verdict.writer)
            arguments = _text(*judge_ends, limits.output_bytes)
            judge = stack.enter_context(Box("judge", limits, {"tests.json": task}, b"", arguments, judge_ends, verdict))
        supervise(judge, candidate)
        return _verdict(judge.outcome(), candidate.outcome(), verdict.text())


def _verdict(judge: Outcome, candidate: Outcome, text: str) -> Verdict:
    if not text:
        return Verdict(False, one_line(f"the tests did not end: {judge.status} {judge.stderr[-500:]}"), candidate)
    passed, reason = json.loads(text)
    ended = "" if passed or candidate.status == "finished" else f" (the candidate: {candidate.status})"
    return Verdict(passed and judge.status == "finished", one_line(reason + ended), candidate)


def _pipe(ends: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose two ends are closed in this process once both boxes have inherited theirs."""
    reader, writer = os.pipe()
    ends.callback(os.close, reader)
    ends.callback(os.close, writer)
    return reader, writer


def _text(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]
