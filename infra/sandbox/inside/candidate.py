"""Runs a candidate program and answers calls of its functions, one JSON line each way.

The program shares this process, so it can forge any answer; answers are only data, which other processes judge.

Request: [operation, target, arguments, keyword arguments]. Reply: ["value", value], or ["raised", name of the first
built-in type the exception descends from, its own type and message]. The first reply comes when the program has run.
"""

import json
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from infra.sandbox.inside.confine import confine
from infra.sandbox.inside.standard_values import named_tuple
from infra.sandbox.inside.wire import Reference, decode, encode

OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda target, *arguments, **named: target(*arguments, **named),
    "getattr": getattr,
    "setattr": setattr,
    "iter": iter,
    "next": next,
}


class Candidate:
    """The names of a program and the objects that its calls returned."""

    def __init__(self) -> None:
        self.module = sys.modules["program"] = ModuleType("program")
        self.objects: list[Any] = []

    def load(self, source: bytes) -> None:
        """Run the program's top level."""
        exec(compile(source, "program.py", "exec"), self.module.__dict__)

    def answer(self, line: str) -> Any:
        """Result of the operation in `line`, as JSON data."""
        operation, *operands = json.loads(line)
        target, arguments, named = (decode(operand, self._resolve, self._named_tuple) for operand in operands)
        return encode(OPERATIONS[operation](target, *arguments, **named), self._reference)

    def _resolve(self, reference: Reference) -> Any:
        if isinstance(reference, int):
            return self.objects[reference]
        if reference not in self.module.__dict__:
            raise NameError(f"the program defines no {reference}")
        return self.module.__dict__[reference]

    def _named_tuple(self, name: str, fields: tuple[str, ...]) -> Any:
        """The program's own class of named tuples, if it defines it."""
        own = self.module.__dict__.get(name)
        is_own = isinstance(own, type) and issubclass(own, tuple) and getattr(own, "_fields", None) == fields
        return own if is_own else named_tuple(name, fields)

    def _reference(self, value: Any) -> int:
        self.objects.append(value)
        return len(self.objects) - 1


def reply_to(action: Callable[..., Any], *arguments: Any) -> str:
    """Reply line with the value or the exception of the action."""
    try:
        return json.dumps(["value", action(*arguments)])
    except BaseException as error:  # SystemExit too: a program that ends itself fails that call
        built_in = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        try:
            message = f"{type(error).__name__}: {error}"
        except BaseException:
            message = type(error).__name__
        return json.dumps(["raised", built_in, message[:500]])


def main() -> None:
    """Answer requests until there are no more."""
    requests, replies = (int(text) for text in confine())
    candidate = Candidate()
    with open("program.py", "rb") as file:
        source = file.read()
    with os.fdopen(requests, encoding="utf-8") as lines, os.fdopen(replies, "w", encoding="utf-8") as answers:
        print(reply_to(candidate.load, source), file=answers, flush=True)
        for line in lines:
            print(reply_to(candidate.answer, line), file=answers, flush=True)


if __name__ == "__main__":
    main()
