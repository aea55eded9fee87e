"""Programs in a box: what they print, and what their functions return."""

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
"""Of one call's value: keys that collide can make a set of a megabyte of numbers take half a minute here, outside."""
NO_FILES: Mapping[str, bytes] = MappingProxyType({})


def run_python(
    source: str, limits: Limits | None = None, stdin: str = "", files: Mapping[str, bytes] = NO_FILES
) -> Outcome:
    """Run a Python program with the standard library, as this interpreter's version, in an empty folder of its own.

    Args:
        files: name, relative to that folder, to content.

    Raises:
        SandboxUnavailable: where the machine cannot build the box.
        ConfigError: for a file name that leaves the folder.
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
    """What one call of a candidate's function gave."""

    value: Any = None
    """Plain data only: None, numbers, text, bytes, and lists, tuples, sets, dicts and ranges of them."""
    error: str | None = None
    """Why there is no value: the exception raised, a limit, or a result that is no plain data."""


def call_function(
    program: str, name: str, arguments: Sequence[tuple[Any, ...]], limits: Limits | None = None
) -> list[Call]:
    """Call a program's function once for each tuple of arguments, in one box; compare the values with yours here.

    The program can return what it likes, and nothing but: no exit code, printed text or changed `assert` is trusted.

    Raises:
        SandboxUnavailable: where the machine cannot build the box.
        TypeError: for arguments that are no plain data.
    """
    check_sandbox()
    limits = limits or Limits()
    requests = [["call", ["reference", name], encode(one, _no_reference), ["dict", []]] for one in arguments]
    lines = "".join(json.dumps(request) + "\n" for request in requests).encode()
    answers = Stream(limits.output_bytes)
    numbers = ["0", str(answers.writer)]  # requests come on standard input
    with Box("candidate", limits, {PROGRAM: encode_source(program)}, lines, numbers, [answers.writer], answers) as box:
        supervise(box)
        outcome = box.outcome()
    calls = [_read(line) for line in answers.text().split("\n")[:-1]]
    if not calls or calls[0].error:
        return [Call(error=calls[0].error if calls else f"no answer: {outcome.status}")] * len(requests)
    missing = Call(error=f"no answer: {outcome.status}")
    return [*calls[1:], *[missing] * len(requests)][: len(requests)]


def encode_source(source: str) -> bytes:
    """The file of a program; text that is no valid Unicode becomes a program that does not compile."""
    return source.encode("utf-8", "surrogatepass")


def one_line(text: str) -> str:
    """What code of others had to say, such as an exception's message, safe to print and to store.

    Line ends become spaces; lone surrogates, which UTF-8 cannot hold, and control characters, which terminals obey,
    become "?".
    """
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))


def _read(line: str) -> Call:
    if len(line) > ANSWER_BYTES:
        return Call(error=f"the answer is longer than {ANSWER_BYTES} bytes")
    try:
        kind, *parts = json.loads(line)
        return Call(decode(parts[0], _no_object)) if kind == "value" else Call(error=one_line(str(parts[1])))
    except Exception as error:  # whatever the candidate wrote
        return Call(error=one_line(f"the answer is no plain value: {error}")[:500])


def _no_reference(value: Any) -> Reference:
    raise TypeError(f"{type(value).__name__} cannot go into the sandbox; arguments are plain data")


def _no_object(reference: Reference) -> Any:
    raise ValueError("an object that is no plain data")
