"""Where model-written code runs, and the only place: bubblewrap, a seccomp filter and resource limits.

`run_python` runs a program; `call_function` gives what its functions return; `run_tests` judges it by tests that are
code. `check_sandbox` says whether this machine can; where it cannot, nothing is run.
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
