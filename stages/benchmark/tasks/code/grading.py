"""Programs that models wrote, judged in the sandbox and nowhere else, several at a time.

- `sandbox_refusal`: why this machine cannot judge, with what helps
- `grade`: verdicts, each kept as it comes
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
"""Of a program and of its tests, each. The slowest solution (MBPP 123) needs 7 s of a slow core; an endless program
costs them all."""


class Grade(NamedTuple):
    """Whether a program passed, and if not, what went wrong in one line."""

    passed: bool
    reason: str


def sandbox_refusal() -> str | None:
    """What is missing and the way to get it; None where the sandbox works."""
    try:
        check_sandbox()
    except SandboxUnavailable as refusal:
        return str(refusal)
    return None


def grade(
    programs: Sequence[tuple[CodeProblem, str]],
    verdicts: AnswerStore,
    advanced: Callable[[int, int], None] = lambda done, total: None,
) -> list[Grade]:
    """A grade for each program, in their order.

    Args:
        programs: with the problem that each is to solve.
        verdicts: where verdicts are kept and looked for. They do not depend on who wrote a program, so that a program
            that several samples or models have in common is run once.
        advanced: told (programs judged, all programs).

    Raises:
        SandboxUnavailable: where the machine cannot build the box.
    """
    keys = [_key(problem, program) for problem, program in programs]
    new = {key: one for key, one in zip(keys, programs, strict=True) if key not in verdicts}
    done = len(set(keys)) - len(new)
    with verdicts, ThreadPoolExecutor(workers_or_all(None)) as pool:
        running = {pool.submit(_judge, *one): key for key, one in new.items()}
        try:
            for future in as_completed(running):
                verdicts.add({running[future]: list(future.result())})
                done += 1
                advanced(done, len(set(keys)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [Grade(*verdicts[key]) for key in keys]


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that at least one of `k` programs is right, drawn from `samples` of which `passed` are.

    The unbiased estimator 1 - C(samples - passed, k) / C(samples, k) (Chen et al. 2021, 2107.03374, equation 1), as a
    product, since the binomials exceed the range of floats.

    Args:
        samples: programs generated for a problem.
        passed: programs among them that pass its tests.
        k: programs drawn without replacement, 1 to `samples`.
    """
    assert 0 <= passed <= samples and 1 <= k <= samples, (samples, passed, k)
    if samples - passed < k:
        return 1.0  # every draw holds a right one
    all_wrong = 1.0
    for right in range(passed):
        all_wrong *= 1 - k / (samples - right)
    return 1 - all_wrong


def _judge(problem: CodeProblem, program: str) -> Grade:
    verdict = run_tests(program, problem.tests, problem.names, LIMITS, problem.context)
    return Grade(verdict.passed, verdict.reason)


def _key(problem: CodeProblem, program: str) -> str:
    return request_key(problem.tests, problem.names, problem.context, program, dataclasses.asdict(LIMITS))
