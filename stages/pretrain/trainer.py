"""Where the training loop runs: in this process, or as data-parallel workers of a Ray `TorchTrainer`.

- `train_in_process`: one process, no Ray
- `train_on_ray`: DDP over gloo (NCCL on GPUs); a killed worker resumes from the newest complete checkpoint
- `trained_model`: the network as the last checkpoint holds it
"""

import json
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_schemas.errors import HeadraceError
from infra.artifacts import Artifact
from infra.filesystem import Folder
from infra.progress import ProgressListener
from infra.ray_session import cpu_count, ensure_ray
from infra.token_stream import TokenStream, WindowSampler
from modeling.optimizer import build_adamw
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.pretrain import checkpoints
from stages.pretrain.batch_plan import BatchPlan
from stages.pretrain.stage import PretrainConfig
from stages.pretrain.training_loop import Callbacks, LogRow, train
from stages.stage import StageContext

RUN_NAME = "train"
LOG = "log.json"


@dataclass(frozen=True)
class TrainingOutcome:
    """What training left besides its last checkpoint."""

    log: list[dict[str, Any]]
    starts: list[int]
    """First step of each process group that trained: one entry more than there were interruptions."""
    batch_tokens: int

    @classmethod
    def read(cls, work: Folder, plan: BatchPlan) -> "TrainingOutcome":
        """From the log that rank 0 kept."""
        found = read_log(work)
        return cls(found["rows"], found["starts"], plan.batch_tokens)

    @property
    def training_seconds(self) -> float:
        """Seconds of all logged intervals; what was trained twice because of an interruption counts once."""
        return sum(seconds for _, seconds in self._intervals())

    @property
    def tokens_per_second(self) -> float:
        """Median over the log's intervals."""
        return statistics.median(row["tokens_per_second"] for row in self.throughput())

    def throughput(self) -> list[dict[str, float]]:
        """Tokens per second over each interval of the log."""
        return [
            {"step": row["step"], "tokens_per_second": steps * self.batch_tokens / max(seconds, 1e-9)}
            for row, (steps, seconds) in zip(self.log, self._intervals(), strict=True)
        ]

    def _intervals(self) -> list[tuple[int, float]]:
        """(steps, seconds) up to each row, from the row before it or from the start of its process group."""
        intervals = []
        last_step, last_seconds = 0, 0.0
        for row in self.log:
            start = max(step for step in self.starts if step < row["step"])
            if last_step <= start:
                last_step, last_seconds = start, 0.0
            intervals.append((row["step"] - last_step, row["seconds"] - last_seconds))
            last_step, last_seconds = row["step"], row["seconds"]
        return intervals


@dataclass(frozen=True)
class WorkerOrder:
    """Everything a training process needs; picklable."""

    config: PretrainConfig
    plan: BatchPlan
    model_config: TransformerConfig
    tokens: Artifact
    work: Folder

    @property
    def checkpoints(self) -> Folder:
        """Where checkpoints go; the trainer's storage path."""
        return self.work.child(RUN_NAME)


class TrainingLog:
    """Rows in one small file that is rewritten as a whole; a resumed run drops what came after its checkpoint."""

    def __init__(self, work: Folder, first_step: int) -> None:
        """Continue the log of the run at `first_step`."""
        self._work = work
        before = read_log(work)
        self._rows = [row for row in before["rows"] if row["step"] <= first_step]
        self._starts = [*before["starts"], first_step]
        self._write()

    def append(self, row: LogRow) -> None:
        """Add a row."""
        self._rows.append(row.as_json())
        self._write()

    def _write(self) -> None:
        self._work.write(LOG, json.dumps({"rows": self._rows, "starts": self._starts}).encode())


def read_log(work: Folder) -> dict[str, list[Any]]:
    """The log's rows and starts so far."""
    try:
        found = json.loads(work.read(LOG))
    except FileNotFoundError:
        return {"rows": [], "starts": []}
    return {"rows": found["rows"], "starts": found["starts"]}


def train_in_process(
    config: PretrainConfig, plan: BatchPlan, model_config: TransformerConfig, tokens: Artifact, context: StageContext
) -> TrainingOutcome:
    """Train here; resumes from the newest complete checkpoint in `context.work`."""
    order = WorkerOrder(config, plan, model_config, tokens, context.work)

    def save(step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        with tempfile.TemporaryDirectory() as folder:
            checkpoints.write_state(Path(folder), 0, step, model, optimizer)
            for file in Path(folder).iterdir():
                order.checkpoints.write(f"{checkpoints.checkpoint_name(step)}/{file.name}", file.read_bytes())
        checkpoints.mark_complete(order.checkpoints, step, 1)

    with _watched(context.work, plan, context.listener):
        _train_as(order, 0, save, lambda model: model, lambda value: value)
    return TrainingOutcome.read(context.work, plan)


def train_on_ray(
    config: PretrainConfig, plan: BatchPlan, model_config: TransformerConfig, tokens: Artifact, context: StageContext
) -> TrainingOutcome:
    """Train as Ray Train workers.

    Raises:
        HeadraceError: what a worker said the user can mend.
        ray.train.TrainingFailedError: where workers died more often than `max_failures`.
    """
    ensure_ray()
    import ray.train
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from stages.pretrain.local_trainer import trainer_class

    order = WorkerOrder(config, plan, model_config, tokens, context.work)
    if checkpoints.newest_complete(order.checkpoints) == plan.steps:
        return TrainingOutcome.read(context.work, plan)  # a run that was killed between its last step and its commit
    gpus = torch.cuda.is_available()
    trainer = trainer_class()(
        _ray_worker,
        train_loop_config={"order": order},
        scaling_config=ScalingConfig(
            num_workers=plan.ranks, use_gpu=gpus, resources_per_worker={"GPU" if gpus else "CPU": 1}
        ),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=RunConfig(
            name=RUN_NAME,
            storage_path=context.work.full() if context.work.is_local else context.work.url,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    with _watched(context.work, plan, context.listener):
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _user_error(error) or error from None
    return TrainingOutcome.read(context.work, plan)


def trained_model(model_config: TransformerConfig, plan: BatchPlan, work: Folder) -> Transformer:
    """The network of the last step's checkpoint."""
    model = Transformer(model_config)
    model.load_state_dict(checkpoints.read_state(work.child(RUN_NAME), plan.steps)["model"])
    return model.eval()


def _ray_worker(train_loop_config: dict[str, Any]) -> None:
    import ray.train
    import torch.distributed as distributed
    from ray.train import Checkpoint, get_context
    from ray.train.torch import get_device
    from torch.nn.parallel import DistributedDataParallel

    order: WorkerOrder = train_loop_config["order"]
    rank = get_context().get_world_rank()
    torch.set_num_threads(max(1, cpu_count() // get_context().get_local_world_size()))

    def save(step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        with tempfile.TemporaryDirectory() as folder:
            checkpoints.write_state(Path(folder), rank, step, model, optimizer)
            name = checkpoints.checkpoint_name(step)
            ray.train.report({"step": step}, Checkpoint.from_directory(folder), checkpoint_dir_name=name)
        distributed.barrier()
        if rank == 0:
            checkpoints.mark_complete(order.checkpoints, step, order.plan.ranks)

    def mean_over_ranks(value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total) / order.plan.ranks

    _train_as(order, rank, save, lambda model: DistributedDataParallel(model.to(get_device())), mean_over_ranks)


def _train_as(order: WorkerOrder, rank: int, save: Any, wrap: Any, mean_over_ranks: Any) -> None:
    """Build the network, restore the newest complete checkpoint, train to the end."""
    torch.manual_seed(order.config.seed)
    model = Transformer(order.model_config)
    step = checkpoints.newest_complete(order.checkpoints)
    state = checkpoints.read_state(order.checkpoints, step) if step else None
    if state:
        model.load_state_dict(state["model"])
    wrapped = wrap(model)
    config = order.config
    optimizer = build_adamw(model, config.peak_learning_rate, (config.beta1, config.beta2), config.weight_decay)
    if state and step:
        optimizer.load_state_dict(state["optimizer"])
        checkpoints.restore_random_state(order.checkpoints, step, rank)
    else:
        torch.manual_seed(order.config.seed + 1 + rank)  # ranks draw differently from here on
    log = TrainingLog(order.work, step or 0) if rank == 0 else None
    callbacks = Callbacks(
        log=lambda row: log.append(row) if log else None,
        checkpoint=lambda due: save(due, model, optimizer),
    )
    sampler = WindowSampler(TokenStream(order.tokens, "train"), order.model_config.context_length, config.seed)
    train(wrapped, optimizer, sampler, config, order.plan, rank, step or 0, callbacks, mean_over_ranks)


@contextmanager
def _watched(work: Folder, plan: BatchPlan, listener: ProgressListener) -> Iterator[None]:
    """Follow the log that rank 0 writes, wherever it runs."""
    stop = threading.Event()
    earlier_starts = len(read_log(work)["starts"])

    def follow() -> None:
        while not stop.wait(1.0):
            log = read_log(work)
            if log["rows"] and len(log["starts"]) > earlier_starts:
                _tell(log["rows"][-1], plan, listener)

    thread = threading.Thread(target=follow, daemon=True)
    listener.advanced("train", 0, plan.steps, f"0 of {plan.steps} steps")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _tell(row: dict[str, Any], plan: BatchPlan, listener: ProgressListener) -> None:
    step = row["step"]
    listener.advanced("train", step, plan.steps, f"step {step} of {plan.steps}, loss {row['loss']:.3f}")


def _user_error(error: BaseException) -> HeadraceError | None:
    """What a worker raised for the user, out of the trainer's wrapping."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = failure
        while cause is not None:
            if isinstance(cause, HeadraceError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None
