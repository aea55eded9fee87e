"""Environment variables for Prefect; to be set before its import; the user's values are kept.

They make Prefect quiet and fast, and let it and all others reach this machine without the user's proxy.
"""

import os
import sys
import warnings

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # A cold start creates the server's database: 14 s on the reference machine, more on a slow disk.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Prefect's shortest; infra/deployment/prefect-automations.yaml declares a run crashed after three that are missing.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}
_QUIET = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL"}
OWN_VARIABLES = frozenset((*_DEFAULTS, *_QUIET))
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _set_defaults() -> None:
    # A process that has imported Prefect is one of its own. A worker imports flows for their hooks, and the processes
    # of its later flow runs inherit its environment: they would log nothing.
    for name, value in (_DEFAULTS if "prefect" in sys.modules else _DEFAULTS | _QUIET).items():
        os.environ.setdefault(name, value)
    if not os.environ.get("PREFECT_API_URL", "unset"):
        del os.environ["PREFECT_API_URL"]  # Prefect tries to connect to an empty URL
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - there is no home, which ends the import of Prefect
        os.environ.setdefault("PREFECT_HOME", "/.prefect")
    warnings.filterwarnings("ignore", "Failed to create the Prefect home")  # an error of the run, if it needs one


def _bypass_proxies_to_this_machine() -> None:
    names = ("NO_PROXY", "no_proxy")
    for name, other in (names, names[::-1]):
        users = [host.strip() for host in (os.environ.get(name) or os.environ.get(other) or "").split(",")]
        if "*" not in users:
            os.environ[name] = ",".join(dict.fromkeys([*filter(None, users), *LOOPBACK]))


_set_defaults()
_bypass_proxies_to_this_machine()
