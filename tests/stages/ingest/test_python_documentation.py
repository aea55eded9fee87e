import os
import warnings
from importlib import metadata
from pathlib import Path

import pytest

from infra.workers.capacity import Capacity
from stages.ingest import python_documentation
from stages.ingest.config import IngestConfig
from stages.ingest.python_documentation import (
    Reject,
    SourceDocument,
    Unit,
    _distribution_units,
    dependencies,
    fingerprint,
    list_units,
    module_documentation,
    read_unit,
    select_units,
)
from stages.ingest.stage import IngestStage


def unit(file, kind="module", path="package/module.py"):
    return Unit(kind, "package", "1.0", "MIT", path, str(file), file.stat().st_size)


def test_docstrings_come_in_source_order_under_their_qualified_names():
    source = b'''
"""About the module."""
if True:
    def first(a):
        """Does the first thing.

        With care:
            Indented more.
        """
class Second:
    """A class."""
    async def third(self):
        """A method."""
    def silent(self): ...
'''
    assert module_documentation(source, "package.module") == (
        "About the module.\n\n"
        "package.module.first\n\nDoes the first thing.\n\nWith care:\n    Indented more.\n\n"
        "package.module.Second\n\nA class.\n\n"
        "package.module.Second.third\n\nA method."
    )


def test_units_are_read_as_data_and_never_imported(tmp_path):
    module = tmp_path / "module.py"
    text = " ".join(["Words that matter."] * 30)
    module.write_text(f'"""{text}"""\nraise SystemExit("imported!")\n')
    [document] = read_unit(unit(module))
    assert document == SourceDocument("package/module.py", text, "package", "1.0", "MIT")


def test_what_cannot_be_parsed_is_a_reject(tmp_path):
    for content in (b"def broken(:", b"\xff\xfe\x00", b"x = '\x00'", rb'"""\ud800 no file can hold this"""'):
        broken = tmp_path / "broken.py"
        broken.write_bytes(content)
        [result] = read_unit(unit(broken))
        assert isinstance(result, Reject)


def test_odd_escapes_in_other_peoples_code_are_read_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert module_documentation(b'"""A \\d class."""', "module") == "A \\d class."


def test_a_description_is_the_body_of_the_metadata(tmp_path):
    metadata = tmp_path / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: x\n\n# Title\n\n" + "Prose with ünïcode. " * 30, encoding="utf-8")
    [document] = read_unit(unit(metadata, "description", "x.dist-info/METADATA"))
    assert document.text.startswith("# Title")
    assert "ünïcode" in document.text
    assert "Metadata-Version" not in document.text


def test_this_interpreter_has_topics_modules_and_descriptions_but_nothing_of_our_own():
    units = list_units()
    assert {unit_.kind for unit_ in units} == {"topics", "module", "description"}
    assert "headrace" not in {unit_.package for unit_ in units}
    assert len({(unit_.package, unit_.path) for unit_ in units}) == len(units)
    [topics] = [unit_ for unit_ in units if unit_.kind == "topics"]
    assert len(list(read_unit(topics))) > 50
    assert not [unit_ for unit_ in units if "/tests/" in unit_.path]
    descriptions = [unit_.package for unit_ in units if unit_.kind == "description"]
    assert len(descriptions) == len(set(descriptions)) <= len(list(metadata.distributions()))


def test_the_choice_under_a_cap_is_deterministic_and_grows():
    units = list_units()
    small, large = select_units(units, 2_000_000), select_units(units[::-1], 4_000_000)
    assert sum(unit_.bytes for unit_ in small) <= 2_000_000
    assert large[: len(small)] == small
    assert len(select_units(units, None)) == len(units)


def test_only_packages_that_headrace_depends_on_are_read(tmp_path, monkeypatch):
    before = fingerprint(5_000_000)
    folder = tmp_path / "unrelated-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: unrelated\nVersion: 1.0\n\n" + "Prose. " * 200)
    (folder / "RECORD").write_text("unrelated-1.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "unrelated" in {found.metadata["Name"] for found in metadata.distributions()}
    assert fingerprint(5_000_000) == before != fingerprint(6_000_000)


def test_units_are_listed_once_until_a_package_is_installed(tmp_path, monkeypatch):
    listings, module = [], tmp_path / "module.py"
    module.write_text('"""Text."""')
    monkeypatch.setattr(python_documentation, "_standard_library", lambda: listings.append(1) or [unit(module)])
    monkeypatch.setattr(python_documentation, "_distributions", dict)
    monkeypatch.syspath_prepend(tmp_path)
    config, stage = IngestConfig(max_source_bytes=2_000_000), IngestStage()
    assert stage.list_sources(config, "") == stage.list_sources(config, "")
    volume = stage.list_sources(config, "").volume
    assert volume and stage.estimate(config, volume, Capacity()).output.text_bytes == volume.text_bytes > 0
    assert len(listings) == 1, "as often as a plan needs them"
    units = list_units()
    units.clear()
    assert list_units(), "a list of one's own"
    (tmp_path / "other-1.0.dist-info").mkdir()
    list_units()
    assert len(listings) == 2
    os.utime(tmp_path / "other-1.0.dist-info", (1, 1))
    list_units()
    assert len(listings) == 3, "installed again"


def test_dependencies_follow_extras_and_markers_in_circles():
    requirements = {
        "own": ["Engine[fast]>=1", "never; python_version < '3'", "extra-only; extra == 'plots'"],
        "engine": ["own", "slow; extra == 'slow'", "Fast_Part; extra == 'fast'"],
        "fast-part": [],
        "unrelated": ["engine"],
    }
    assert dependencies(requirements, "own") == {"own", "engine", "fast-part"}


@pytest.mark.parametrize("record", ["RECORD", None])
def test_a_package_has_the_modules_that_importlib_lists(record, tmp_path):
    text = "Metadata-Version: 2.1\nName: odd\nVersion: 2.0\nLicense: MIT\n more\n\nProse.\n\nName: other"
    files = {"odd/a, b.py": "1", "odd//sub/./c.py": "22", "odd/d.py": "", "odd/tests/e.py": "5", "odd/f.txt": "6"}
    info = tmp_path / "odd-2.0.dist-info"
    for path, content in {**files, f"{info.name}/METADATA": text, "odd/odd-1.dist-info/METADATA": "vendored"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    listed = [*files, f"{info.name}/METADATA", "odd/odd-1.dist-info/METADATA", "odd/absent.py", "../outside.py"]
    lines = "".join(f'"{path}",,\n' for path in listed)
    (info / (record or "none")).write_text(lines)
    package = metadata.PathDistribution(info)
    expected = [f"{info.name}/METADATA", "odd/a, b.py", "odd/sub/c.py"] if package.files else []
    units = sorted(_distribution_units("odd", package), key=lambda unit: unit.path)
    assert [unit.path for unit in units] == expected
    assert [unit.bytes for unit in units] == [len(text), 1, 2][: len(units)]
    assert {(unit.version, unit.licence) for unit in units} <= {("2.0", "MIT")}
    assert all(Path(unit.file).is_file() and str(Path(unit.file)) == unit.file for unit in units)
