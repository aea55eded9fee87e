"""Sandbox for model-written code, which never runs outside it: bubblewrap, a seccomp filter and resource limits.

`run_python` runs a program; `call_function` calls its functions and returns their values; `run_tests` grades it with
tests that are code. `check_sandbox` checks that this machine can build the sandbox; if not, nothing is run.
"""

from infra.sandbox.grading import Verdict, run_tests
from infra.sandbox.limits import Limits, Outcome, SandboxUnavailable
from infra.sandbox.readiness import check_sandbox
from infra.sandbox.running import Call, call_function, run_python

__all__ = [
    "Call",
    "Limits",
    "Outcome",
    "SandboxUnavailable",
    "Verdict",
    "call_function",
    "check_sandbox",
    "run_python",
    "run_tests",
]
