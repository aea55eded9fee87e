"""A driver that is killed right after each milestone of a run, once.

`python -m tests.flows.jobs.dying FOLDER -m MODULE ...` runs a module.

- `MILESTONES`: files after whose writing the process ends with SIGKILL
- `writes`: paths that each life of the run wrote
"""

import fnmatch
import os
import runpy
import signal
import sys
from pathlib import Path

from infra.store.filesystem import Folder

MILESTONES = {
    "partition": "*/clean/*/parts/clean/00000_000003.json",
    "training step": "*/pretrain/*/work/train/step-00000008/complete.json",
    "compression pass": "*/compress/*/work/pass-1/measurement.json",
    "benchmark items": "*/benchmark/*/work/answers/*/000001.jsonl",
}


def main(folder: Path, module: str, arguments: list[str]) -> None:
    """Run a module, killed after the first milestone that no earlier life has reached."""
    write, number = Folder.write, len(list(folder.glob("life-*")))
    with (folder / f"life-{number}").open("w", buffering=1) as lines:

        def write_and_die(self: Folder, path: str, data: bytes) -> None:
            write(self, path, data)
            full = self.full(path)
            lines.write(f"{full}\n")
            for name, pattern in MILESTONES.items():
                if fnmatch.fnmatch(full, pattern) and not (folder / name).exists():
                    (folder / name).touch()
                    os.kill(os.getpid(), signal.SIGKILL)

        Folder.write = write_and_die  # type: ignore[method-assign]
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def writes(folder: Path) -> list[list[str]]:
    """Paths that each life wrote, in order."""
    lives = sorted(folder.glob("life-*"), key=lambda life: int(life.name.partition("-")[2]))
    return [life.read_text().splitlines() for life in lives]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[3], sys.argv[4:])
