"""`headrace evaluate`: a model in a folder is asked what a run's models are asked, without a run.

- `evaluate`: measures, and writes `scores.parquet` and `items.parquet`
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from data_schemas.errors import ConfigError, NotFoundError
from flows.console import PlainView
from flows.run_config import RunConfigBase
from infra.store.artifacts import table_bytes
from infra.store.filesystem import Folder


def evaluate(model: str, config: RunConfigBase, output: str, name: str | None = None) -> pa.Table:
    """Put the tasks of a config's `benchmark` section to a model.

    Args:
        model: folder of a Hugging Face checkpoint or of an export of Headrace's.
        config: whose `benchmark.tasks` and `benchmark.seed` count.
        output: folder for the two tables, and for answers, so that a stopped evaluation goes on.
        name: of the model in the tables; the folder's where left out.

    Returns:
        The table `scores`.

    Raises:
        NotFoundError, ContractError, EnvironmentProblem: where the folder holds no model that can be run.
        ConfigError: where there is nothing to ask.
        InputDataError: where data of a task cannot be read.
    """
    from stages.benchmark.config import BenchmarkConfig
    from stages.benchmark.evaluated_models import checkpoint
    from stages.benchmark.measure_tasks import TaskProgress, measure_baselines, measure_model, result_tables

    if not Path(model).is_dir():
        raise NotFoundError(
            f"there is no folder {model}; evaluate reads checkpoints of Hugging Face and exports: headrace export "
            "latest FOLDER --format headrace"
        )
    benchmark = config.stage_config("benchmark")
    assert isinstance(benchmark, BenchmarkConfig)
    if not benchmark.tasks:
        raise ConfigError("benchmark.tasks is empty: there is nothing to ask; leave it out for the tasks of Headrace")
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
