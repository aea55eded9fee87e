"""Prefect flows and the command line. Importing anything here first makes Prefect quiet and quick."""

from flows import quiet_prefect as quiet_prefect
from infra.control_groups import limit_threads

limit_threads()
