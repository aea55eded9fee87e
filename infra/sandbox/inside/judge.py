"""Runs a task's tests against a candidate in another box, and writes the verdict.

The candidate's process affects this one only by its answers to calls, which `wire` reads as plain values; the verdict
is written to a descriptor that only this process has, after the last assertion held.
"""

import builtins
import json
import os
from typing import Any

from infra.sandbox.inside.confine import confine
from infra.sandbox.inside.wire import Reference, decode, encode


class CandidateError(Exception):
    """The candidate ended, sent an invalid answer or raised an exception that is not built in."""


class Connection:
    """Calls of the candidate's box."""

    def __init__(self, requests: int, replies: int, line_bytes: int) -> None:
        self.requests = os.fdopen(requests, "w", encoding="utf-8")
        self.replies = os.fdopen(replies, "rb")
        self.line_bytes = line_bytes

    def request(self, operation: str, target: Any, *arguments: Any, **named: Any) -> Any:
        """Result of the operation in the candidate; raises the built-in exception that it raised."""
        message = [operation, *(encode(operand, _reference) for operand in (target, arguments, named))]
        try:
            print(json.dumps(message), file=self.requests, flush=True)
        except BrokenPipeError:
            raise CandidateError("the candidate's process has ended") from None
        try:
            return self.reply()
        except (StopIteration, StopAsyncIteration) as end:
            if operation == "next":
                raise
            # It would end a test's `map` or `all` early, and the following cases would not be tried.
            raise CandidateError(f"a call raised {type(end).__name__}") from None

    def reply(self) -> Any:
        """Value of the next reply."""
        line = self.replies.readline(self.line_bytes)
        if not line.endswith(b"\n"):
            raise CandidateError("the answer is too long" if line else "the candidate's process has ended")
        try:
            kind, *parts = json.loads(line)
            value = decode(parts[0], lambda reference: Remote(self, reference)) if kind == "value" else None
            name, message = ("", "") if kind == "value" else (str(parts[0]), str(parts[1]))
        except Exception as error:
            raise CandidateError(f"the answer is no plain value: {error!r}"[:500]) from None
        if kind == "value":
            return value
        raised = getattr(builtins, name, None)
        if isinstance(raised, type) and issubclass(raised, Exception):
            try:
                exception = raised(message)
            except TypeError:  # UnicodeDecodeError and similar ones take five arguments
                exception = CandidateError(message)
            raise exception
        raise CandidateError(message)


class Remote:
    """Proxy of a function or an object in the candidate's process; equal only to itself, whatever its class defines."""

    def __init__(self, connection: Connection, reference: Reference) -> None:
        object.__setattr__(self, "_connection", connection)
        object.__setattr__(self, "_reference", reference)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it in the candidate's process."""
        return self._connection.request("call", self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._connection.request("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._connection.request("setattr", self, name, value)

    def __iter__(self) -> Any:
        return self._connection.request("iter", self)

    def __next__(self) -> Any:
        return self._connection.request("next", self)


def _reference(value: Any) -> Reference:
    if isinstance(value, Remote):
        reference: Reference = value._reference
        return reference
    raise TypeError(f"a test passes {type(value).__name__}, which cannot go to the candidate's process")


def judge(task: dict[str, Any], connection: Connection) -> tuple[bool, str]:
    """Whether all tests passed, and the reason of the failure if not."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        connection.reply()  # the program has run
        exec(compile(task["context"], "context", "exec"), namespace)
        namespace.update({name: Remote(connection, name) for name in task["names"]})
        exec(compile(task["tests"], "tests", "exec"), namespace)
    except BaseException as error:
        return False, _explain(error, task["tests"])
    return True, "passed"


def _explain(error: BaseException, tests: str) -> str:
    """The exception in one line, with the line of the tests that raised it."""
    import traceback

    numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests"]
    message = traceback.format_exception_only(error)[-1].strip()
    lines = tests.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # as Python counts them
    if numbers and numbers[-1] and numbers[-1] <= len(lines):
        message += f" at test line {numbers[-1]}: {lines[numbers[-1] - 1].strip()}"
    return message[:1000]


def main() -> None:
    """Judge /scratch/tests.json."""
    requests, replies, verdict, line_bytes = (int(text) for text in confine())
    with open("tests.json", encoding="utf-8") as file:
        task = json.load(file)
    passed, reason = judge(task, Connection(requests, replies, line_bytes))
    os.write(verdict, json.dumps([passed, reason]).encode())


if __name__ == "__main__":
    main()
