"""Run the training loop in this process or on the workers of a Ray `TorchTrainer`.

- `train_in_process`: a single process without Ray
- `train_on_ray`: any layout over gloo (NCCL on GPUs); killed workers resume from the newest complete checkpoint
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch

from data_schemas.errors import ConfigError, TrainingDivergedError
from infra.hardware import matmul_ceiling
from infra.precision import TF32_CAPABILITY
from infra.workers.ray_training import TrainingWorkers, Worker, fit, ray_trainer
from modeling.training.loss_scale import LossScale
from modeling.training.optimizer import build_optimizer
from modeling.training.weight_averaging import ExponentialAverage
from modeling.transformer import Transformer
from stages.common.token_stream import TokenStream, WindowSampler
from stages.pretrain import checkpoint_files
from stages.pretrain.batch_plan import BatchPlan
from stages.pretrain.checkpoints import Checkpoints
from stages.pretrain.parallel.worker_network import WorkerNetwork
from stages.pretrain.progress.run_monitor import monitored
from stages.pretrain.progress.samples import sample_texts
from stages.pretrain.progress.training_log import Event, TrainingLog, TrainingOutcome
from stages.pretrain.stop_request import StopRequest, stop_on_sigterm
from stages.pretrain.training_job import TrainingJob
from stages.pretrain.training_loop import Callbacks, PretrainingLoop, TrainingStopped
from stages.pretrain.training_state import TrainingState
from stages.stage import StageContext


def train_in_process(job: TrainingJob, context: StageContext) -> TrainingOutcome:
    """Train in this process; resumes from the newest complete checkpoint in the work folder.

    Raises:
        KeyboardInterrupt: after SIGTERM, with a checkpoint saved.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with monitored(job, context.listener, context.records), stop_on_sigterm(job.work):
        try:
            _train(job, job.plan, 0, device)
        except TrainingStopped:
            raise _interrupted(job) from None
    return TrainingOutcome.read(job.work)


def train_on_ray(job: TrainingJob, context: StageContext) -> TrainingOutcome:
    """Train as Ray Train workers.

    Raises:
        HeadraceError: an error of a worker that the user can fix, or too few resources in the cluster.
        KeyboardInterrupt: after SIGTERM, with a checkpoint saved.
        ray.train.TrainingFailedError: if workers failed more often than `max_failures`.
    """
    if checkpoint_files.newest_complete(job.checkpoints) == job.plan.steps:
        return TrainingOutcome.read(job.work)  # the run was killed between its last step and its commit
    config = job.config
    counts = tuple(sorted(job.plans))
    workers = TrainingWorkers("pretrain", counts[-1], counts[0], config.cpus_per_worker, config.max_failures, counts)
    trainer = ray_trainer(partial(_train_on_worker, job), workers, job.work)
    with monitored(job, context.listener, context.records), stop_on_sigterm(job.work):
        fit(trainer)
    if checkpoint_files.newest_complete(job.checkpoints) != job.plan.steps:
        raise _interrupted(job)
    return TrainingOutcome.read(job.work)


def _train_on_worker(job: TrainingJob, worker: Worker) -> None:
    # A worker that stops on request returns like a finished one; the driver tells them apart by the checkpoints.
    with suppress(TrainingStopped):
        _train(job, job.plans[worker.count], worker.rank, worker.device)


def _train(job: TrainingJob, plan: BatchPlan, rank: int, device: torch.device) -> None:
    """Build this process's part of the network, restore the newest complete checkpoint, train to the last step."""
    config = job.config
    _refuse_missing_tf32(plan, device)
    with _numerics(config.deterministic, plan.precision == "tf32"):
        torch.manual_seed(config.seed)
        network = _build_network(job, plan, device)
        optimizer = build_optimizer(
            network.module,
            config.optimizer,
            config.peak_learning_rate,
            (config.beta1, config.beta2),
            config.weight_decay,
            config.momentum,
            plan.precision,
            network.mesh.same_parameters if network.mesh else None,
            config.embedding_rate,
        )
        half_life = config.ensemble.half_life(plan.steps)
        state = TrainingState(
            network,
            optimizer,
            ExponentialAverage(network.module, half_life) if half_life else None,
            LossScale() if plan.precision == "fp16" else None,
        )
        store = Checkpoints(job.checkpoints, rank, job.origin, job.kept_steps)
        if not store.restore(state):
            torch.manual_seed(config.seed + 1 + rank)  # workers draw different random numbers from here on
        ceiling, _ = network.all_reduce(matmul_ceiling(device.type, plan.precision))
        log = TrainingLog(job.work, state.step, ceiling * plan.layout.world_size) if rank == 0 else None
        sampler = WindowSampler(TokenStream(job.tokens, "train"), job.model_config.context_length, config.seed)
        callbacks = _callbacks(job, store, state, log, StopRequest(job.work) if rank == 0 else None)
        for problem in store.damaged if log else ():
            log.record(Event(state.step, "damaged checkpoint", problem))  # type: ignore[union-attr]
        try:
            PretrainingLoop(state, sampler, job, plan, callbacks).run()
        except (
            TrainingStopped,
            TrainingDivergedError,
        ):  # raised on all workers; a worker that fails alone must not wait
            store.wait()
            raise
        store.wait()


def _build_network(job: TrainingJob, plan: BatchPlan, device: torch.device) -> WorkerNetwork:
    def prepare(model: Transformer) -> None:
        model.recompute = job.config.recompute_activations
        if job.config.compile:
            for layer in model.layers.children():
                layer.compile()

    if not torch.distributed.is_initialized():
        return WorkerNetwork.alone(job.model_config, device, prepare)
    return WorkerNetwork.build(job.model_config, plan.layout, device, plan.micro_batch, plan.accumulation, prepare)


def _callbacks(
    job: TrainingJob, store: Checkpoints, state: TrainingState, log: TrainingLog | None, stop: StopRequest | None
) -> Callbacks:
    def rewind(step: int) -> bool:
        store.remove_from(step, job.is_scheduled)
        restored = store.restore(state)
        if restored and log:
            log.truncate(state.step)
        return restored

    def checkpoint() -> None:
        if log:
            log.sync()
        store.save(state)

    return Callbacks(
        log=log.append if log else lambda row: None,
        sample=(lambda: log.sample(state.step, _samples(job, state))) if log else lambda: None,
        event=log.record if log else lambda event: None,
        checkpoint=checkpoint,
        rewind=rewind,
        stop_requested=stop or (lambda: False),
    )


def _samples(job: TrainingJob, state: TrainingState) -> list[str]:
    """Sampled texts; the whole network is on this worker."""
    config = job.config
    [network] = state.network.networks
    tokenizer = job.tokens.read("tokenizer.json")
    return sample_texts(network, tokenizer, config.sample_prompts, config.sample_tokens, config.seed)


def _refuse_missing_tf32(plan: BatchPlan, device: torch.device) -> None:
    on_gpu = device.type == "cuda"
    if plan.precision != "tf32" or (on_gpu and torch.cuda.get_device_capability(device)[0] >= TF32_CAPABILITY):
        return
    name = torch.cuda.get_device_name(device) if on_gpu else "the processor that trains"
    raise ConfigError(f"pretrain.precision is tf32, which {name} does not have; use auto, bf16, fp16 or fp32")


@contextmanager
def _numerics(deterministic: bool, tf32: bool) -> Iterator[None]:
    """Kernels of this training.

    Args:
        deterministic: equal bits in every run on the same machine and layout, slower on GPUs.
        tf32: float32 matrix products of GPUs in TF32; else never, also for the few float32 products beside bf16.
    """
    previous, products = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(previous)
        torch.set_float32_matmul_precision(products)


def _interrupted(job: TrainingJob) -> KeyboardInterrupt:
    step = checkpoint_files.newest_complete(job.checkpoints)
    return KeyboardInterrupt(f"training stopped with a checkpoint at step {step} of {job.plan.steps}")
