"""Runs /scratch/program.py as a main program."""

import sys
from types import ModuleType

from infra.sandbox.inside.confine import confine


def main() -> None:
    """Run the program as `__main__`, without arguments."""
    confine()
    sys.argv[:] = ["program.py"]
    module = sys.modules["__main__"] = ModuleType("__main__")
    module.__dict__["__file__"] = "program.py"
    with open("program.py", "rb") as file:
        source = file.read()
    exec(compile(source, "program.py", "exec"), module.__dict__)


if __name__ == "__main__":
    main()
