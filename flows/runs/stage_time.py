"""The time that a stage may take, `<stage>.timeout_seconds`.

- `time_is_over`: the error of a stage that took longer
- `limited_time`: context that interrupts a stage in this process, where no flow engine does
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from data_schemas.config import StageConfig
from data_schemas.errors import EnvironmentProblem

REPEAT_SECONDS = 30.0


class _TimeIsOver(KeyboardInterrupt):
    """Ends a stage like Ctrl-C, so that no handler of errors takes it for one."""


def time_is_over(stage: str, seconds: float) -> EnvironmentProblem:
    """The error of a stage that took longer than it may."""
    return EnvironmentProblem(
        f"{stage} was stopped after {stage}.timeout_seconds, {seconds:g} seconds; what it finished is kept: the same "
        f"command with --set {stage}.timeout_seconds={2 * seconds:g} continues it"
    )


@contextmanager
def limited_time(stage: str, config: StageConfig) -> Iterator[None]:
    """Interrupt the block when the stage's time is over; call it in the main thread.

    Raises:
        EnvironmentProblem: if the block took longer.
    """
    seconds = config.timeout_seconds
    if seconds is None:
        yield
        return
    assert threading.current_thread() is threading.main_thread(), "signals reach the main thread only"
    is_over = threading.Event()

    def interrupt(*_: object) -> None:
        is_over.set()
        raise _TimeIsOver

    before = signal.signal(signal.SIGALRM, interrupt)
    # Repeated: what a handler raises inside a destructor or a callback of a library is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)
    try:
        yield
    except BaseException as error:  # libraries wrap interrupts into errors of theirs
        if is_over.is_set():
            raise time_is_over(stage, seconds) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
