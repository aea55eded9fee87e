"""Environment that makes Prefect quiet and quick; imported before prefect, and whatever the user set is kept."""

import os

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Each flow loses a second joining its heartbeat thread; a run's liveness is told by its own record.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
    # A cold start has to create the server's database first: 14 s here, more on a slow disk.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

for _name, _value in _DEFAULTS.items():
    if _name == "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" or (_name.startswith("PREFECT_LOGGING") and "PREFECT_API_URL" in os.environ):
        continue
    os.environ.setdefault(_name, _value)
