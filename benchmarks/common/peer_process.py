"""Peers that cannot be installed in this environment: scripts run by another interpreter, JSON in and JSON out.

datatrove needs `xxhash<4`, which conflicts with Headrace's own environment, so the peers have a separate one:
`python -m venv PEERS; PEERS/bin/pip install datatrove==0.10.1 'xxhash<4' ...`, then
`python -m benchmarks.NAME --peers PEERS/bin/python`.

- `add_peers_argument`: the option `--peers` of a benchmark's parser
- `peer_python`: the interpreter that can import the peers, or None
- `run_peer`: run a script by it, JSON to JSON
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def add_peers_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--peers PYTHON` to `parser`."""
    parser.add_argument(
        "--peers", metavar="PYTHON", help="interpreter of an environment with the peers (default: this one)"
    )


def peer_python(argument: str | None, modules: Sequence[str] = ("datatrove",)) -> str | None:
    """The interpreter that runs the peers: `argument`, by default this one.

    Args:
        argument: value of `--peers`, or None.
        modules: modules that the peers import.

    Returns:
        None, after a line on standard output with the reason, if it cannot import them.
    """
    python = argument or sys.executable
    imports = "; ".join(f"import {module}" for module in modules)
    completed = subprocess.run([python, "-c", imports], capture_output=True, text=True, env=_environment(1))
    if completed.returncode == 0:
        return python
    problem = (
        completed.stderr.strip().splitlines()[-1] if completed.stderr.strip() else f"exit code {completed.returncode}"
    )
    print(
        f"{python} cannot import the peers ({problem}): measuring ours only; --peers PYTHON selects another interpreter"
    )
    return None


def run_peer(python: str, script: str, request: Any, *, threads: int = 1) -> Any:
    """Run a script by another interpreter.

    Args:
        python: from `peer_python`.
        script: Python source that reads a JSON value from standard input and prints its result, also JSON, as the last
            line of its output. It runs outside this project's environment and cannot import our packages.
        request: the JSON value that it reads.
        threads: number of threads of the numerical libraries.

    Returns:
        The result that it prints.

    Raises:
        RuntimeError: the script fails; with the end of its error output.
    """
    completed = subprocess.run(
        [python, "-c", script], input=json.dumps(request), capture_output=True, text=True, env=_environment(threads)
    )
    if completed.returncode:
        raise RuntimeError(f"the peer script failed with exit code {completed.returncode}: {completed.stderr[-2000:]}")
    return json.loads(completed.stdout.strip().splitlines()[-1])


def _environment(threads: int) -> dict[str, str]:
    """This process's environment, without the variables that make our packages importable."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
    return {**inherited, **dict.fromkeys(counts, str(threads))}
