"""Cancellation on the Prefect server of a run that a command started: no worker would stop its process.

- `stops_when_cancelled`: context in which the process of a flow run stops as by Ctrl-C if its flow run is cancelled
- `cancelled_named`: translates that interrupt, and reports the flow run as cancelled rather than crashed
"""

import contextlib
import contextvars
import logging
import signal
import threading
from collections.abc import Iterator
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.states import Cancelled

from flows.flow_runs import flow_run_id

POLL_SECONDS = 5.0

logger = logging.getLogger(__name__)


class RunCancelled(KeyboardInterrupt):
    """The flow run was cancelled on the server."""


_cancelled: list[str] = []
"""Ids of flow runs of this process that were cancelled."""


@contextlib.contextmanager
def stops_when_cancelled() -> Iterator[None]:
    """Interrupt the main thread if the current flow run is cancelled on the server."""
    flow_run = flow_run_id()
    if flow_run is None:
        yield
        return
    ended = threading.Event()
    context = contextvars.copy_context()  # the settings of this thread
    threading.Thread(target=context.run, args=(_watch, flow_run, ended), name="cancellation", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextlib.contextmanager
def cancelled_named() -> Iterator[None]:
    """Report an interrupt that came from the server as such.

    Raises:
        RunCancelled: instead of it.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not _cancelled:
            raise
        flow_run = UUID(_cancelled.pop())
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            # The flow engine takes the interrupt for a crash.
            client.set_flow_run_state(flow_run, Cancelled(), force=True)
        raise RunCancelled("cancelled on the Prefect server") from interrupt


def _watch(flow_run: str, ended: threading.Event) -> None:
    main = threading.main_thread().ident
    assert main is not None
    with get_client(sync_client=True) as client:
        while not ended.wait(POLL_SECONDS):
            try:
                state = client.read_flow_run(UUID(flow_run)).state
            except Exception as error:
                logger.debug("the state of flow run %s is unknown: %s", flow_run, error)
                continue
            if state and (state.is_cancelling() or state.is_cancelled()) and not ended.is_set():
                _cancelled.append(flow_run)
                signal.pthread_kill(main, signal.SIGINT)
                return
