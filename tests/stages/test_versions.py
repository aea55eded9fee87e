"""A stage that makes other bytes of the same config and inputs has another version.

Each stage runs on fixed inputs that do not come from the preceding stages. Held are: for ingest, clean, dedup and
tokenize the whole content of their files; for pretrain, compress and benchmark the files, fields, names, shapes,
integers and texts, and the order of the training data. Floats that a network computed are held within 1e-3, since their
last digits differ by processor (by up to 7e-5 between AVX-512 with VNNI and SSE4); weights by the norm of each tensor.
Encodings of tables are not held, as they differ by version of pyarrow. Not run are Ray workers, GPUs, reduced
precision, fine-tuned tasks, checkpoints from elsewhere and `python://documentation`. Recoveries of compress have two
steps at a low rate, as longer ones amplify the differences of processors: small changes of their optimizer pass.
"""

import json
from dataclasses import replace

import pytest

from stages.registry import STAGES, stage_named
from tests.stages.versions import fixture
from tests.stages.versions.cases import contents_of
from tests.stages.versions.contents import Contents, digest
from tests.stages.versions.fixture import Held, VersionError

NAMES = [stage.name for stage in STAGES]


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_makes_what_was_recorded_for_its_version(name):
    entry, stage = fixture.held().get(name), stage_named(name)
    if (
        entry
        and stage.version == entry.version
        and (reason := fixture.stale_packages(entry, fixture.packages_of(name)))
    ):
        pytest.skip(reason)
    fixture.compare(name, stage.version, entry, contents_of(name))


BEFORE = Held(3, {"ftfy": "6.3"}, {"a/x.parquet": "1", "a/y.parquet": "2"}, {"loss": [3.0, 2.0], "change": [0.0]})
SAME = Contents({"a/x.parquet": "1", "a/y.parquet": "2"}, {"loss": [3.0, 2.0004], "change": [1e-6]})
OTHER = Contents({"a/x.parquet": "9", "a/z.parquet": "2"}, {"loss": [3.0, 2.1], "change": [0.0, 0.0]})


def test_other_contents_under_the_same_version_name_what_differs():
    fixture.compare("clean", 3, BEFORE, SAME)
    with pytest.raises(VersionError) as raised:
        fixture.compare("clean", 3, BEFORE, OTHER)
    assert str(raised.value).splitlines() == [
        "raise the version of clean: version 3 made other bytes of the same inputs before:",
        "  a/x.parquet: other content",
        "  a/y.parquet: no longer written",
        "  a/z.parquet: new file",
        "  change: 1 values -> 2",
        "  loss: 2 -> 2.1",
        "then record them with: python -m tests.stages.record_versions clean",
    ]


@pytest.mark.parametrize(
    ("version", "entry", "message"),
    [
        (4, BEFORE, "record version 4 with: python -m tests.stages.record_versions clean"),
        (2, BEFORE, "version 2 of clean is lower than 3"),
        (3, None, "clean has no entry in versions.json"),
    ],
)
def test_a_version_without_its_own_entry_is_an_error(version, entry, message):
    with pytest.raises(VersionError, match=message):
        fixture.compare("clean", version, entry, SAME)


def test_other_packages_are_named():
    assert fixture.stale_packages(BEFORE, {"ftfy": "6.3"}) is None
    assert fixture.stale_packages(BEFORE, {"ftfy": "7.0"}) == "recorded with other packages: ftfy 6.3 -> 7.0"
    with pytest.raises(VersionError, match=r"declared packages changed \(pycld2\); record the stage with"):
        fixture.stale_packages(BEFORE, {"ftfy": "6.3", "pycld2": "1"})


def test_recording_refuses_what_changed_under_the_same_version(tmp_path, monkeypatch):
    monkeypatch.setattr(fixture, "packages_of", lambda name: {"ftfy": "6.3"})
    path = tmp_path / "versions.json"
    fixture.record("clean", 3, SAME, path)
    written = path.read_bytes()
    assert fixture.record("clean", 3, replace(SAME, figures={"loss": [3.0, 2.0001], "change": [0.0]}), path) == []
    assert path.read_bytes() == written, "another processor changes nothing"
    for version, message in ((3, "raise the version of clean first"), (2, "lower than 3")):
        with pytest.raises(VersionError, match=message):
            fixture.record("clean", version, OTHER, path)
    assert path.read_bytes() == written
    assert len(fixture.record("clean", 4, OTHER, path)) == 5
    assert fixture.held(path)["clean"] == Held(4, {"ftfy": "6.3"}, OTHER.files, OTHER.figures)
    fixture.record("clean", 4, SAME, path, force=True)
    monkeypatch.setattr(fixture, "packages_of", lambda name: {"ftfy": "7.0"})
    fixture.record("clean", 4, OTHER, path)  # a key has the versions of declared packages in it
    assert json.loads(path.read_text())["clean"]["packages"] == {"ftfy": "7.0"}


def test_the_ninth_digit_of_a_float_is_held_and_the_order_of_fields_is_not():
    assert digest({"a": 0.1 + 0.2, "b": [1, b"x"]}) == digest({"b": [1, b"x"], "a": 0.3})
    assert len({digest(value) for value in (0.3, 0.300000001, "0.3", [0.3], 1, 1.0, True, None)}) == 8
