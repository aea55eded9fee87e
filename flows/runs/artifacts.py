"""Artifacts and state of a recorded run, as commands and the report read them.

- `stage_artifacts`, `manifests`: by stage; `model_artifact`: the one with a model
- `status`: the run's state, with runs whose process died; `report_location`: its report, if written
"""

from data_schemas.errors import NotFoundError, UnreadableRecordError
from data_schemas.manifest import Manifest, RunRecord
from data_schemas.public_urls import public_url
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.filesystem import Folder
from infra.store.records import report_once
from infra.store.runs import process_of
from stages.registry import STAGES

STAGES_WITH_MODELS = ("compress", "pretrain")
REPORT = "report.html"
PROFILE_PAGE = "profile.html"
"""The page of the corpus profile, beside the report."""


def stage_artifacts(store_url: str, record: RunRecord) -> dict[str, Artifact]:
    """Stage -> the artifact that the run used, in the order of the stages.

    Deleted artifacts are omitted; so are those whose manifest this version cannot read, with a line each.
    """
    store = ArtifactStore(store_url)
    artifacts = {}
    for stage in STAGES:
        if stage.name in record.stages:
            try:
                artifacts[stage.name] = store.open(record.stages[stage.name].artifact)
            except UnreadableRecordError as error:
                report_once(f"skipped: {error}")
            except NotFoundError:
                continue
    return artifacts


def manifests(store_url: str, record: RunRecord) -> dict[str, Manifest]:
    """Stage -> manifest of the artifact that the run used; deleted artifacts are omitted."""
    return {stage: artifact.manifest for stage, artifact in stage_artifacts(store_url, record).items()}


def model_artifact(store_url: str, record: RunRecord, stage: str) -> Artifact:
    """The artifact with a run's model; file sizes are checked.

    Raises:
        NotFoundError: if the run has no such model.
        DamagedArtifactError: if one of its files is missing or truncated.
    """
    if stage not in STAGES_WITH_MODELS or stage not in record.stages:
        available = [name for name in STAGES_WITH_MODELS if name in record.stages]
        raise NotFoundError(
            f"run {record.run_id} has no model of stage {stage!r}; it has: {', '.join(available) or 'none yet'}"
        )
    artifact = ArtifactStore(store_url).open(record.stages[stage].artifact)
    artifact.check_sizes()
    return artifact


def status(record: RunRecord) -> str:
    """The recorded status, or `killed` for a run whose process is known to have ended."""
    return "killed" if record.status == "running" and process_of(record).is_gone else record.status


def report_folder(store_url: str, run_id: str) -> Folder:
    """Folder of the run's report: `<store>/reports/<run id>`."""
    return Folder(store_url).child(f"reports/{run_id}")


def report_location(store_url: str, record: RunRecord, page: str = REPORT) -> str | None:
    """Path of the run's report or of the page beside it, or the URL if the store is not local; None if not written."""
    folder = report_folder(store_url, record.run_id)
    return page_location(folder, page) if folder.exists(page) else None


def page_location(folder: Folder, page: str) -> str:
    """Path of a page, or its URL if the store is not local."""
    return str(folder.local_path(page)) if folder.is_local else f"{public_url(folder.url)}/{page}"
