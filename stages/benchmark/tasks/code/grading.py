"""Grading of generated programs: tests run in the sandbox only, several programs at a time.

- `sandbox_problem`: why this machine cannot run the sandbox, and what helps
- `grade`: grades of programs, stored one by one
- `pass_at_k`: the unbiased estimator of pass@k
"""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

from infra.hardware import workers_or_all
from infra.sandbox import Limits, SandboxUnavailable, check_sandbox, run_tests
from stages.benchmark.harness.answer_store import AnswerStore, request_key
from stages.benchmark.tasks.code.problems import CodeProblem

LIMITS = Limits(cpu_seconds=15, wall_seconds=60)
"""Limits of the program and of its tests, each. The slowest solution (MBPP 123) needs 7 s of a slow core; a program
that does not terminate uses them up."""

GRADING_VERSION = 2
"""Raised when the same program can receive another grade, so that stored grades are not used."""


class Grade(NamedTuple):
    """Whether a program passed its tests; if not, with the reason in one line."""

    passed: bool
    reason: str


def sandbox_problem() -> str | None:
    """The missing part of the sandbox and how to install it; None if the sandbox works."""
    try:
        check_sandbox()
    except SandboxUnavailable as error:
        return str(error)
    return None


def grade(
    programs: Sequence[tuple[CodeProblem, str]],
    store: AnswerStore,
    advanced: Callable[[int, int], None] = lambda done, total: None,
) -> list[Grade]:
    """The grade of each program, in their order.

    Args:
        programs: (problem, program) pairs.
        store: grades from earlier calls are read from it and new ones added. They do not depend on the model, so a
            program that several samples or models have in common runs once.
        advanced: progress callback, (programs graded, all programs).

    Raises:
        SandboxUnavailable: if the machine cannot build the sandbox.
    """
    keys = [_key(problem, program) for problem, program in programs]
    new = {key: pair for key, pair in zip(keys, programs, strict=True) if key not in store}
    done = len(set(keys)) - len(new)
    with store, ThreadPoolExecutor(workers_or_all(None)) as pool:
        running = {pool.submit(_grade_program, problem, program): key for key, (problem, program) in new.items()}
        try:
            for future in as_completed(running):
                store.add({running[future]: list(future.result())})
                done += 1
                advanced(done, len(set(keys)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [Grade(*store[key]) for key in keys]


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that at least one of `k` programs, drawn from `samples` of which `passed` are correct, is correct.

    The unbiased estimator 1 - C(samples - passed, k) / C(samples, k) (Chen et al. 2021, 2107.03374, equation 1), as a
    product, since the binomials exceed the range of floats.

    Args:
        samples: programs generated for a problem.
        passed: programs among them that pass its tests.
        k: programs drawn without replacement, 1 to `samples`.
    """
    assert 0 <= passed <= samples and 1 <= k <= samples, (samples, passed, k)
    if samples - passed < k:
        return 1.0  # every draw contains a correct program
    all_wrong = 1.0
    for correct in range(passed):
        all_wrong *= 1 - k / (samples - correct)
    return 1 - all_wrong


def _grade_program(problem: CodeProblem, program: str) -> Grade:
    verdict = run_tests(program, problem.tests, problem.names, LIMITS, problem.context)
    return Grade(verdict.passed, verdict.reason)


def _key(problem: CodeProblem, program: str) -> str:
    return request_key(
        GRADING_VERSION, problem.tests, problem.names, problem.context, program, dataclasses.asdict(LIMITS)
    )
