import subprocess
import sys
from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from data_schemas.errors import NotFoundError
from flows.config.run_config import build_run_config
from flows.planning.planner import Planner
from infra.progress import SilentListener
from infra.store.artifacts import ArtifactStore
from infra.store.filesystem import Folder
from infra.store.runs import RunStore
from stages.benchmark.config import BenchmarkConfig
from stages.benchmark.measure_tasks import TaskProgress, measure_baselines, measure_model
from stages.benchmark.stage import BenchmarkStage
from tests.stages.benchmark.networks import evaluated


def test_a_plan_imports_neither_torch_nor_the_harness():
    script = (
        "import sys; from stages.benchmark.stage import BenchmarkConfig, BenchmarkStage as Stage; config = "
        "BenchmarkConfig(); assert Stage().sources(config) and sum(task.tokens() for task in config.tasks) > 0; "
        "print(sorted({'torch', 'lm_eval', 'datasets', 'sklearn', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_label_distinguishes_two_settings_of_a_task():
    plain, labeled = {"kind": "winograd", "limit": 6}, {"kind": "winograd", "limit": 6, "label": "again"}
    tasks = BenchmarkConfig(tasks=[plain, labeled]).tasks
    progress = TaskProgress(SilentListener(), lambda _: nullcontext(), 2)
    results = measure_model(evaluated(), tasks, 0, Folder("memory://labels"), progress) + measure_baselines(
        tasks, 0, None
    )
    names = {item["task"] for result in results for item in result.items}
    assert names == {"winograd", "winograd, again"} == {result.score["task"] for result in results}


def test_added_removed_or_changed_data_change_the_key(tmp_path):
    config = BenchmarkConfig(tasks=({"kind": "word_problems", "data": "svamp", "path": str(tmp_path)},))
    seen = [BenchmarkStage().sources(config)]
    for text in ("[]", "[{}]"):
        (tmp_path / "SVAMP.json").write_text(text)
        seen.append(BenchmarkStage().sources(config))
    (tmp_path / "SVAMP.json").unlink()
    assert len({str(digests) for digests in seen}) == 3 and BenchmarkStage().sources(config) == seen[0]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"kind": "glue"}, {"kind": "glue", "sets": ["RTE"], "examples": 5}], "'GLUE RTE' is measured twice"),
        ([{"kind": "winograd"}, {"kind": "winograd", "path": "dev.jsonl"}], "'winograd' is measured twice"),
        ([{"kind": "sudoku"}], "'glue', .*'winograd', 'word_problems'"),
    ],
)
def test_duplicate_and_unknown_tasks_are_refused(tasks, message):
    with pytest.raises(ValidationError, match=message):
        BenchmarkConfig(tasks=tasks)


def test_a_checkpoint_cannot_have_the_name_of_the_run_s_own_network():
    with pytest.raises(ValidationError, match="'pretrained' is the name of a network of the run itself"):
        BenchmarkConfig(checkpoints={"pretrained": "models/pythia-70m"})


def test_a_missing_checkpoint_is_reported_before_anything_is_measured(tmp_path):
    config = BenchmarkConfig(tasks=(), checkpoints={"pythia": str(tmp_path / "absent")})
    with pytest.raises(NotFoundError, match=r"checkpoint 'pythia': the folder .* does not exist"):
        BenchmarkStage().check(config)
    run_config = build_run_config({"benchmark": {"tasks": [], "checkpoints": config.checkpoints}}, "test")
    store = str(tmp_path / "store")
    planner = Planner(ArtifactStore(store), RunStore(store), run_config, None, None)
    with pytest.raises(NotFoundError, match="checkpoint 'pythia'"):
        planner.plan()
    assert planner.plan(last_stage="compress")
