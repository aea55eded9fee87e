"""Prefect flows and the command line. Importing anything here first makes Prefect quiet and quick."""

from flows.prefect_server import environment as environment
from infra.control_groups import limit_threads

limit_threads()
