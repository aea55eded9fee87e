"""Cancellation of a flow run on the Prefect server.

A worker signals the process that it started. While training handles the signal, to save a checkpoint, Prefect's engine
learns nothing of the reason and would record a crash. A run that a command started has no worker: it asks the server.

- `ends_as_cancelled`: context in which a stopped flow ends as cancelled if it was cancelled
- `stops_when_cancelled`: the same for a command, which is stopped if its flow run is cancelled
- `cancelled_named`: reports that end to the user of the command
"""

import contextlib
import contextvars
import logging
import signal
import threading
from collections.abc import Iterator
from uuid import UUID

from prefect._internal import control_listener
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.prefect_server.flow_runs import flow_run_id

POLL_SECONDS = 5.0
REPEAT_SECONDS = 30.0
"""As long as a worker waits; the second signal interrupts the saving of a checkpoint."""

logger = logging.getLogger(__name__)


class RunCancelled(KeyboardInterrupt):
    """The flow run was cancelled on the server."""


@contextlib.contextmanager
def ends_as_cancelled() -> Iterator[None]:
    """Let the flow engine end a flow that was stopped by its cancellation as it ends cancelled flows.

    Raises:
        TerminationSignal: instead of the interrupt, for the flow engine.
    """
    try:
        yield
    except (KeyboardInterrupt, TerminationSignal) as interrupt:
        if not _is_cancelled(flow_run_id()):
            raise
        control_listener._set_intent("cancel")
        raise TerminationSignal(signal=signal.SIGTERM) from interrupt


@contextlib.contextmanager
def stops_when_cancelled() -> Iterator[None]:
    """Send this process SIGTERM, as a worker would, if the current flow run is cancelled on the server."""
    ended = threading.Event()
    if flow_run := flow_run_id():
        context = contextvars.copy_context()  # the settings of this thread
        threading.Thread(target=context.run, args=(_watch, flow_run, ended), name="cancellation", daemon=True).start()
    try:
        with ends_as_cancelled():
            yield
    finally:
        ended.set()


@contextlib.contextmanager
def cancelled_named() -> Iterator[None]:
    """Translate the end of a flow that was cancelled.

    Raises:
        RunCancelled: instead of the flow engine's signal.
    """
    try:
        yield
    except TerminationSignal as end:
        if control_listener.get_intent() != "cancel":
            raise
        control_listener.clear_intent()
        raise RunCancelled("cancelled on the Prefect server") from end


def _watch(flow_run: str, ended: threading.Event) -> None:
    main = threading.main_thread().ident
    assert main is not None
    while not ended.wait(POLL_SECONDS):
        # Repeated: what a handler raises inside a destructor or a callback of a library is lost.
        while _is_cancelled(flow_run):
            signal.pthread_kill(main, signal.SIGTERM)
            if ended.wait(REPEAT_SECONDS):
                return


def _is_cancelled(flow_run: str | None) -> bool:
    """Whether a flow run is being cancelled; False if the server does not answer."""
    if flow_run is None:
        return False
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except Exception as error:
        logger.debug("the state of flow run %s is unknown: %s", flow_run, error)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())
