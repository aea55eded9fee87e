"""Peers that cannot live in this environment: scripts run by another interpreter, JSON in and JSON out.

datatrove needs `xxhash<4`, which clashes with what Headrace's own environment holds, so its users and ours keep the
peers in an environment apart: `python -m venv PEERS; PEERS/bin/pip install datatrove==0.10.1 'xxhash<4' ...`, then
`python -m benchmarks.NAME --peers PEERS/bin/python`.

- `add_peers_argument`: the option `--peers` of a benchmark's parser
- `peer_python`: the interpreter that has the peers, or None
- `run_peer`: one script run by it, from JSON to JSON
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def add_peers_argument(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option `--peers PYTHON`."""
    parser.add_argument(
        "--peers", metavar="PYTHON", help="interpreter of an environment with the peers (this one if left out)"
    )


def peer_python(argument: str | None, modules: Sequence[str] = ("datatrove",)) -> str | None:
    """The interpreter to run peers by: `argument`, or else this one.

    Args:
        argument: what `--peers` was given, or None.
        modules: what the peers import.

    Returns:
        None, after a line on standard output that says so, where it cannot import them.
    """
    python = argument or sys.executable
    imports = "; ".join(f"import {module}" for module in modules)
    done = subprocess.run([python, "-c", imports], capture_output=True, text=True, env=_environment(1))
    if done.returncode == 0:
        return python
    problem = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    print(f"no peers in {python} ({problem}): our own figures only; --peers PYTHON names another interpreter")
    return None


def run_peer(python: str, script: str, request: Any, *, threads: int = 1) -> Any:
    """Run `script` by `python`.

    Args:
        python: from `peer_python`.
        script: Python source that reads one JSON value from standard input and prints its answer, also JSON, as the
            last line of its output. It runs outside this project's environment: it can import nothing of ours.
        request: what it reads.
        threads: of the numerical libraries.

    Returns:
        Its answer.

    Raises:
        RuntimeError: with the end of its error output, where it fails.
    """
    done = subprocess.run(
        [python, "-c", script], input=json.dumps(request), capture_output=True, text=True, env=_environment(threads)
    )
    if done.returncode:
        raise RuntimeError(f"the peer script failed with exit code {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _environment(threads: int) -> dict[str, str]:
    """This process's, without what would bring our packages into the other interpreter."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
    return {**kept, **dict.fromkeys(counts, str(threads))}
