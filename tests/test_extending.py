"""The worked examples of docs/extending.md, run as they are printed."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SECTIONS = {section.split("\n", 1)[0]: section for section in re.split(r"(?m)^## ", PAGE)[1:]}


def code(section: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL))


def test_every_kind_of_extension_has_its_example():
    assert list(SECTIONS) == ["A stage", "A compression pass", "A cleaning rule", "A benchmark task"]
    assert all("assert " in code(section) for section in SECTIONS.values())


@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_works(name, monkeypatch):
    module = ModuleType("worked_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    prelude = "from functools import partial\nfrom pydantic import Field\nfrom infra.progress import SilentListener\n"
    exec(compile(prelude + code(SECTIONS[name]), f"docs/extending.md: {name}", "exec"), module.__dict__)
