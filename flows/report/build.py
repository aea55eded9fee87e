"""The run report: one self-contained HTML file, written from the record and the manifests alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import yaml

from data_schemas.manifest import RunRecord
from data_schemas.stage_costs import RunPlan
from flows.report.benchmark_scores import benchmark, read_scores
from flows.report.compression_frontier import compression
from flows.report.contamination import contamination
from flows.report.corpus import corpus
from flows.report.corpus_funnel import corpus_funnel
from flows.report.costs import costs, whole_plan
from flows.report.drawn_once import remember_reports
from flows.report.headline import tiles
from flows.report.lineage_table import lineage
from flows.report.profile.page import profile_page
from flows.report.recipes import Recipes, recipes
from flows.report.synthetic import synthetic
from flows.report.templates import render_template
from flows.report.training_curves import training
from flows.runs.artifacts import PROFILE_PAGE, REPORT, report_folder, report_location, stage_artifacts, status
from infra.named_errors import storage_problem
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.cost_records import CostRecords


def write_report(store_url: str, record: RunRecord) -> str:
    """Write `<store>/reports/<run id>/report.html`, and beside it the page of a corpus profile.

    Returns:
        The report's path, or its URL if the store is not local.

    Raises:
        DamagedArtifactError: if a file that the report reads is missing or its size differs from the manifest.
    """
    remember_reports(store_url, record)
    artifacts = stage_artifacts(store_url, record)
    if "profile" in artifacts:
        scores = read_scores(artifacts["benchmark"]) if "benchmark" in artifacts else []
        profile = profile_page(artifacts["profile"], record.run_id, scores)
        report_folder(store_url, record.run_id).write(PROFILE_PAGE, profile.encode())
    plan = CostRecords(store_url).run_plan(record.run_id)
    page = render(record, artifacts, recipes_of_model(store_url, artifacts), plan)
    report_folder(store_url, record.run_id).write(REPORT, page.encode())
    location = report_location(store_url, record)
    assert location is not None
    return location


@contextmanager
def survived(store_url: str, run_id: str, report: Callable[[str], None]) -> Iterator[None]:
    """Write the report of a finished run in the block: the run stays finished, whatever happens to its report."""
    try:
        yield
    except Exception as error:
        reason = storage_problem(error, store_url) or f"{type(error).__name__}: {error}"
        again = f"try again with: headrace report {run_id}"
        report(f"the run is finished, but its report could not be written: {reason}; {again}")


def recipes_of_model(store_url: str, artifacts: dict[str, Artifact]) -> Recipes | None:
    """All compressions in the store of the model that this run compressed."""
    if "compress" not in artifacts:
        return None
    manifests = [artifact.manifest for artifact in ArtifactStore(store_url).all("compress")]
    return recipes(artifacts["compress"].manifest, manifests)


def render(
    record: RunRecord,
    artifacts: dict[str, Artifact],
    compressions: Recipes | None = None,
    plan: RunPlan | None = None,
) -> str:
    """The page, with a section per stage that the run reached."""
    manifests = {stage: artifact.manifest for stage, artifact in artifacts.items()}
    scores = read_scores(artifacts["benchmark"]) if "benchmark" in artifacts else []
    return render_template(
        "report.html.j2",
        record=record,
        status=status(record),
        gone=[stage for stage in record.stages if stage not in artifacts],
        tiles=tiles(manifests, record, scores),
        corpus=corpus(manifests),
        profile=PROFILE_PAGE if "profile" in artifacts else None,
        funnel=corpus_funnel(artifacts),
        contamination=contamination(manifests),
        synthetic=synthetic(manifests),
        training=training(artifacts["pretrain"]) if "pretrain" in artifacts else None,
        compression=compression(manifests["compress"]) if "compress" in artifacts else None,
        recipes=compressions,
        benchmark=benchmark(artifacts["benchmark"], scores) if "benchmark" in artifacts else None,
        costs=costs(manifests, record),
        whole_plan=whole_plan(plan, manifests, record),
        lineage=lineage(manifests, record),
        config=yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True),
    )
