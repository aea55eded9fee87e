"""Imported by every worker process of a Ray of this machine as it starts; imports what its environment names.

Ray has one list of modules that all of its worker processes import before they accept work. Those of data stages have
no use for torch, so the list has this module alone.
"""

import contextlib
import importlib
import os

MODULES = "HEADRACE_PRELOADED_MODULES"
"""Environment variable with names of modules, separated by commas."""

for _name in filter(None, os.environ.get(MODULES, "").split(",")):
    with contextlib.suppress(Exception):  # reported by whatever needs it
        importlib.import_module(_name)
