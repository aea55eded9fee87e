"""Running programs in a box: their output, and the return values of their functions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from data_schemas.errors import ConfigError
from infra.sandbox.box import Box, Stream
from infra.sandbox.inside.wire import Reference, decode, encode
from infra.sandbox.limits import Limits, Outcome
from infra.sandbox.readiness import check_sandbox
from infra.sandbox.supervision import supervise

PROGRAM = "program.py"
ANSWER_BYTES = 1 << 16
"""Limit on one call's value: a set of a megabyte of numbers with colliding hashes takes this process half a minute."""
NO_FILES: Mapping[str, bytes] = MappingProxyType({})


def run_python(
    source: str, limits: Limits | None = None, stdin: str = "", files: Mapping[str, bytes] = NO_FILES
) -> Outcome:
    """Run a Python program with this interpreter's version and standard library, in an empty folder of its own.

    Args:
        source: code of the program.
        limits: caps on the box.
        stdin: standard input.
        files: file name, relative to that folder -> content.

    Raises:
        SandboxUnavailable: if the machine cannot build the box.
        ConfigError: for a file name outside the folder.
    """
    check_sandbox()
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) in (".", PROGRAM) or "\0" in name:
            raise ConfigError(f"sandbox file {name!r} must be a relative path other than {PROGRAM}, without '..'")
    scratch = {PROGRAM: encode_source(source), **files}
    with Box("program", limits or Limits(), scratch, stdin.encode("utf-8", "surrogatepass")) as box:
        supervise(box)
        return box.outcome()


@dataclass(frozen=True)
class Call:
    """Result of one call of a candidate's function."""

    value: Any = None
    """Plain data: None, numbers, text, bytes, dates, and lists, tuples, sets, dicts, deques and the like of them."""
    error: str | None = None
    """Reason for a missing value: an exception, an exceeded limit, or a result that is not plain data."""


def call_function(
    program: str, name: str, arguments: Sequence[tuple[Any, ...]], limits: Limits | None = None
) -> list[Call]:
    """Call a program's function once for each tuple of arguments, in one box; the caller compares the values.

    Return values are the only thing taken from the program: its exit code and output are not trusted.

    Raises:
        SandboxUnavailable: if the machine cannot build the box.
        TypeError: for arguments that are not plain data.
    """
    check_sandbox()
    limits = limits or Limits()
    requests = [["call", ["reference", name], encode(values, _no_reference), ["dict", []]] for values in arguments]
    lines = "".join(json.dumps(request) + "\n" for request in requests).encode()
    answers = Stream(limits.output_bytes)
    descriptors = ["0", str(answers.writer)]  # requests are read from standard input
    scratch = {PROGRAM: encode_source(program)}
    with Box("candidate", limits, scratch, lines, descriptors, [answers.writer], answers) as box:
        supervise(box)
        outcome = box.outcome()
    calls = [_read(line) for line in answers.text().split("\n")[:-1]]
    if not calls or calls[0].error:
        return [Call(error=calls[0].error if calls else f"no answer: {outcome.status}")] * len(requests)
    missing = Call(error=f"no answer: {outcome.status}")
    return [*calls[1:], *[missing] * len(requests)][: len(requests)]


def encode_source(source: str) -> bytes:
    """Content of a program's file; text that is not valid Unicode becomes a program that does not compile."""
    return source.encode("utf-8", "surrogatepass")


def one_line(text: str) -> str:
    """Untrusted text, such as an exception's message, in a form that is safe to print and store.

    Line ends become spaces; lone surrogates, which UTF-8 cannot encode, and control characters, which terminals
    interpret, become "?".
    """
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


def _read(line: str) -> Call:
    if len(line) > ANSWER_BYTES:
        return Call(error=f"the answer is longer than {ANSWER_BYTES} bytes")
    try:
        kind, *parts = json.loads(line)
        return Call(decode(parts[0], _no_object)) if kind == "value" else Call(error=one_line(str(parts[1])))
    except Exception as error:  # the candidate can write anything
        return Call(error=one_line(f"the answer is no plain value: {error}")[:500])


def _no_reference(value: Any) -> Reference:
    raise TypeError(f"{type(value).__name__} cannot go into the sandbox; arguments are plain data")


def _no_object(reference: Reference) -> Any:
    raise ValueError("an object that is no plain data")
