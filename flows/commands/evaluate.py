"""`headrace evaluate`: the benchmark tasks of a config on a model folder, without a run.

- `evaluate`: runs the tasks, writes `scores.parquet` and `items.parquet`
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from data_schemas.errors import ConfigError
from flows.config.run_config import RunConfigBase
from flows.console import PlainView
from infra.store.artifact_writer import table_bytes
from infra.store.filesystem import Folder


def evaluate(model: str, config: RunConfigBase, output: str, name: str | None = None) -> pa.Table:
    """Run the tasks of a config's `benchmark` section on a model.

    Args:
        model: folder with a Hugging Face checkpoint or an export of a run's model.
        config: run config; `benchmark.tasks` and `benchmark.seed` are used.
        output: folder for the two tables and the answers, from which a stopped evaluation resumes.
        name: name of the model in the tables; by default the folder's name.

    Returns:
        The table `scores`.

    Raises:
        NotFoundError, ContractError, EnvironmentProblem: if the folder holds no model that can be run.
        ConfigError: if there are no tasks.
        InputDataError: if data of a task cannot be read.
    """
    from stages.benchmark.config import BenchmarkConfig
    from stages.benchmark.evaluated_models import checkpoint
    from stages.benchmark.measure_tasks import TaskProgress, measure_baselines, measure_model, result_tables

    benchmark = config.stage_config("benchmark")
    assert isinstance(benchmark, BenchmarkConfig)
    if not benchmark.tasks:
        raise ConfigError(
            "benchmark.tasks is empty, so there is no task to run; omit it for the tasks that come with Headrace"
        )
    folder = Folder(output)
    progress = TaskProgress(PlainView().stage_started("evaluate"), _untimed, len(benchmark.tasks) + 1)
    evaluated = checkpoint(name or Path(model).resolve().name, Path(model))
    results = measure_model(evaluated, benchmark.tasks, benchmark.seed, folder.child("answers"), progress)
    with progress.step("baselines", "all tasks"):
        results += measure_baselines(benchmark.tasks, benchmark.seed, folder.child("answers"))
    progress.finished()
    scores, items = result_tables(results)
    folder.write("items.parquet", table_bytes("items.parquet", items))
    folder.write("scores.parquet", table_bytes("scores.parquet", scores))
    return scores


@contextmanager
def _untimed(phase: str) -> Iterator[None]:
    yield
