"""A process that claims runs, for tests: `python -m tests.infra.store.claimant COMMAND STORE [ARGUMENT]`.

- `race STORE NUMBERS`: tries to win each of the first numbers of run `raced`; prints those that it won
- `adopt STORE RUN`: tries to adopt a run, and beats if it does; prints its fencing number, or `none` and the reports
- `own STORE RUN SECONDS`: starts a run and beats until killed; prints its host and pid. Its claim promises a beat
  every SECONDS, for claimants to wait; it beats faster, for tests not to depend on the machine's load
"""

import sys

from infra.store import claims
from infra.store.claims import Heartbeat, RunClaims
from infra.store.runs import RunStore
from tests.infra.store.run_records import run_record

BEAT_SECONDS = 0.2
SLOW_BEAT_SECONDS = 20.0


def main(command: str, store: str, argument: str, promised_beat_seconds: str = "20") -> None:
    """Execute one command."""
    claims.BEAT_SECONDS = float(promised_beat_seconds)
    runs = RunStore(store)
    if command == "race":
        raced = RunClaims(runs.folder.child("raced.claims"), "raced")
        print("ready", flush=True)
        sys.stdin.readline()
        print(*(number for number in range(1, int(argument) + 1) if raced.take(number)), flush=True)
    elif command == "adopt":
        print("ready", flush=True)
        sys.stdin.readline()
        reports: list[str] = []
        adopted = runs.adopt(argument, reports.append)
        claims.BEAT_SECONDS = BEAT_SECONDS
        if adopted:
            Heartbeat(adopted[1]).start()
        print(adopted[1].number if adopted else f"none: {'; '.join(reports)}", flush=True)
        sys.stdin.readline()  # the owner lives until its input ends
    elif command == "own":
        record, claim = runs.start(run_record(argument))
        claims.BEAT_SECONDS = BEAT_SECONDS
        Heartbeat(claim).start()
        print(record.host, record.pid, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
