from dataclasses import replace

import pytest

from flows.report.build import render
from flows.report.compression_frontier import generation_key
from flows.report.recipes import recipes
from flows.runs.artifacts import stage_artifacts
from infra.store.artifacts import ArtifactStore
from tests.flows.report import synthetic

COUNTED = {"macs_per_token": 2e6, "bit_operations_per_token": 2e9}


@pytest.fixture
def measured(tmp_path):
    """A run's compress manifest, as version 6 of the stage measures it."""
    store = str(tmp_path / "store")
    record = synthetic.write_run(store, ("tokenize", "compress"))
    (artifact,) = ArtifactStore(store).all("compress")
    manifest = artifact.manifest
    rows = [row | COUNTED for row in manifest.metrics["passes"]]
    return store, record, manifest.model_copy(update={"metrics": {"passes": rows}, "stage_version": 6})


def test_recipes_measured_by_other_versions_are_left_out_and_counted(measured):
    _, _, own = measured
    other, old, older = (
        own.model_copy(update={"key": key * 64, "stage_version": version})
        for key, version in (("1", 6), ("2", 5), ("3", 4))
    )
    section = recipes(own, [own, other, old, older])
    assert (len(section.rows), section.omitted) == (2, 2)
    assert recipes(own, [own, old]) is None, "nothing is comparable"
    section = recipes(old, [own, old, older.model_copy(update={"stage_version": 5})])
    assert (len(section.rows), section.omitted) == (2, 1)


@pytest.mark.parametrize(("version", "noted"), [(4, True), (5, True), (6, False)])
def test_the_page_says_how_an_earlier_version_counted(measured, version, noted):
    store, record, manifest = measured
    artifacts = stage_artifacts(store, record)
    of_version = manifest.model_copy(update={"stage_version": version})
    artifacts["compress"] = replace(artifacts["compress"], manifest=of_version)
    page = render(record, artifacts)
    assert ("Measured by an earlier version" in page) == noted


def test_memory_is_compared_by_a_decoder_that_both_networks_have():
    torch_only, both = {"generation_bytes": 9}, {"generation_bytes": 9, "generation_bytes_in_c": 7}
    assert generation_key(both, both) == "generation_bytes_in_c"
    assert generation_key(torch_only, both) == generation_key(both, torch_only) == "generation_bytes"
