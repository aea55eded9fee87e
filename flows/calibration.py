"""Calibration of this machine: products, memory, and a small run whose stages' rates are learned.

- `calibrate`: measures and keeps the rates; they then plan whatever this store's runs have not taught
- `calibration_config`: the small run
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from data_schemas.manifest import Volume
from data_schemas.stage_costs import StageCosts
from flows.config.run_config import RunConfigBase, build_run_config
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from infra.control_groups import available_memory, cpu_count
from infra.hardware import cpu_rates
from infra.rates.machine_rates import MachineRates, keep, machine_rates, measured_now
from infra.rates.rates import Rate, Rates, learned_rates
from infra.store.cost_records import CostRecords
from infra.workers.capacity import Capacity, Engine
from infra.workers.ray_session import close_ray
from modeling.evaluation.config_counts import flops_per_token, parameters
from modeling.transformer_config import TransformerConfig
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import PretrainStage
from stages.tokenize.config import TokenizeConfig

WARM_UP_BYTES, SOURCE_BYTES = 300_000, 4_000_000
"""Python's own documentation: so little that the start of a stage is what takes time, and enough for a rate."""
PARTITIONS = 8
MIN_START_SECONDS = 0.05
DATA = "tokenize"
TRAINING_SECONDS = 8.0
MIN_STEPS, MAX_STEPS, LOG_STEPS = 6, 60, 2
PRODUCT_SHARE = 0.3
"""Share of the rate of products that a training step reaches; only decides the number of steps that are measured."""
MEMORY_SHARE = 0.25
STATE_BYTES = 16
WARM_UP_VOCABULARY, MAX_VOCABULARY = 512, 4_096
"""Entries that the text of each run is sure to yield."""
OPTIONAL: dict[str, Any] = {
    # Without entities: starting spaCy takes longer than all else; the rest teaches the speed of this machine.
    "profile": {"coverage": {"entity_pipelines": [], "toxicity_megabytes": 1.0, "sampled_documents": 100}},
}
"""The optional stage that is measured. A synthesis of so little text takes the time of its rounds, which is no rate."""
LIKE_TRAINING = ("compress train", "compress forward", "benchmark forward")
"""Work with the network that is not measured by itself: it is taken to differ from the table as training does."""
Report = Callable[[str], None]


def calibrate(config: RunConfigBase | None, report: Report) -> MachineRates:
    """Measure this machine, in less than a minute if it is idle, and keep the rates in the user's cache folder.

    Args:
        config: the config whose network is trained for some steps; by default the demo's.
        report: receives a line about what is measured, and about what could not be.
    """
    begun = time.monotonic()
    _warn_of_load(report)
    with _without_cluster():
        report("matrix products and memory")
        base = measured_now()
        rates = _stage_rates(config, base, report)
    measured = base.model_copy(update={"rates": _with_earlier(rates), "seconds": time.monotonic() - begun})
    keep(measured)
    return measured


def _stage_rates(config: RunConfigBase | None, base: MachineRates, report: Report) -> list[Rate]:
    engine: Engine = config.execution.engine if config else "ray"
    rates: list[Rate] = []
    with TemporaryDirectory(prefix="headrace-calibration-") as folder:
        report("small pieces of the data stages")
        with _survived("the data stages", report):
            _run(f"{folder}/compiled", calibration_config(None, base, WARM_UP_BYTES, WARM_UP_VOCABULARY), DATA)
        for number, tried in enumerate(dict.fromkeys([engine, "inline"])):  # where Ray does not start, without it
            if not rates:
                with _survived(f"the data stages in engine {tried}", report):
                    rates += _data_rates(f"{folder}/{number}", base, tried)
        report("steps of training")
        try:
            with _survived("training", report):
                rates += _training_rates(f"{folder}/0", _trainable(config, base, report), base)
        finally:
            close_ray()
    return rates


@contextlib.contextmanager
def _survived(what: str, report: Report) -> Iterator[None]:
    """Report an error in the block, such as of a machine without room for Ray: other rates are worth keeping."""
    try:
        yield
    except Exception as error:
        report(f"{what} could not be measured: {error}")


def _data_rates(store: str, base: MachineRates, engine: Engine) -> list[Rate]:
    """Rates of the data stages, by the larger of two runs, and their starts, by the smaller.

    The profile is in the larger one only: its start, of several seconds, would take the minute beyond its end.
    """
    small = calibration_config(None, base, WARM_UP_BYTES, WARM_UP_VOCABULARY, engine)
    _run(store, small.model_copy(update=dict.fromkeys(OPTIONAL)), DATA)
    first = list(CostRecords(store).newest())
    _run(store, calibration_config(None, base, engine=engine), DATA)
    rates = _known_rates(store)
    return rates + [start for costs in first if (start := _start_rate(costs, rates)) is not None]


def _known_rates(store: str) -> list[Rate]:
    """Rates of everything but starts, of the newest execution of each stage."""
    newest = {costs.stage: costs for costs in reversed(list(CostRecords(store).newest()))}
    return [rate for costs in newest.values() for rate in learned_rates(costs) if not rate.kind.endswith("start")]


def _start_rate(costs: StageCosts, rates: Sequence[Rate]) -> Rate | None:
    """Start of a stage whose other work is too small to matter: workers, imports, folders."""
    work = next((part for part in costs.planned.work if part.kind.endswith("start")), None)
    if work is None or costs.measured is None or costs.measured.incomplete:
        return None
    others = [part for part in Rates(learned=rates).applied(costs.planned).work if part.kind != work.kind]
    seconds = costs.measured.seconds - sum(part.seconds for part in others)
    return Rate(kind=work.kind, amount=1, per_second=1 / max(seconds, MIN_START_SECONDS))


@contextlib.contextmanager
def _without_cluster() -> Iterator[None]:
    """Ray starts on this machine in the block, whatever cluster RAY_ADDRESS names."""
    address = os.environ.pop("RAY_ADDRESS", None)
    try:
        yield
    finally:
        if address is not None:
            os.environ["RAY_ADDRESS"] = address


@dataclass(frozen=True)
class Trained:
    """A network to measure."""

    config: PretrainConfig
    vocabulary: int


DEMO = Trained(
    PretrainConfig.model_validate(
        {
            "model": {"layers": 4, "width": 128, "heads": 4, "context_length": 256},
            "workers": 2, "batch_tokens": 2_048, "micro_batch": 4, "optimizer": "muon",
        }
    ),
    vocabulary=4_096,
)  # fmt: skip


def calibration_config(
    trained: Trained | None,
    machine: MachineRates,
    source_bytes: int = SOURCE_BYTES,
    vocabulary: int = MAX_VOCABULARY,
    engine: Engine = "inline",
) -> RunConfigBase:
    """A small run: Python's documentation, and some steps of a network, by default of the demo's.

    A profile is in it, with what is fast in it.

    Args:
        trained: the network and how it is trained.
        machine: rates of products, which decide the number of steps.
        source_bytes: text to read.
        vocabulary: most entries that so much text yields.
        engine: what partitions run in.
    """
    settings, vocabulary = (trained or DEMO).config, min((trained or DEMO).vocabulary, vocabulary)
    pretrain = settings.model_dump(exclude_unset=True)
    steps = _steps(settings, vocabulary, machine)
    short = {
        "tokens": steps * settings.batch_tokens, "first_batch_tokens": None, "log_every_steps": LOG_STEPS,
        "checkpoint_every_steps": steps, "sample_every_steps": 0, "timeout_seconds": None,
        "ensemble": settings.ensemble.model_dump() | {"checkpoints": 0, "logits": False},
    }  # fmt: skip
    values = {
        "name": "calibration",
        "execution": {"engine": engine},
        "ingest": {
            "path": "python://documentation",
            "max_source_bytes": source_bytes,
            "partition_bytes": source_bytes // PARTITIONS,
        },
        "dedup": {"held_out_share": 0.1},
        **OPTIONAL,
        "tokenize": {"vocabulary_size": vocabulary},
        "pretrain": pretrain | short,
    }
    return build_run_config(values, "calibration")


def _trainable(config: RunConfigBase | None, machine: MachineRates, report: Report) -> Trained:
    """The network of a config; the demo's, and a line, if this machine cannot train some steps of it in seconds."""
    if config is None:
        return DEMO
    pretrain, tokenize = config.stage_config("pretrain"), config.stage_config("tokenize")
    assert isinstance(pretrain, PretrainConfig) and isinstance(tokenize, TokenizeConfig)
    processors = pretrain.workers * pretrain.cpus_per_worker
    if processors > max(cpu_count(), DEMO.config.workers):
        why = f"needs {processors:g} processors, and here are {cpu_count()}"
    elif not _is_trainable(pretrain, tokenize.vocabulary_size, machine):
        why = "takes too long or too much memory here"
    else:
        return Trained(pretrain, tokenize.vocabulary_size)
    report(f"the training of this config {why}; that of the demo is measured")
    return DEMO


def _is_trainable(config: PretrainConfig, vocabulary: int, machine: MachineRates) -> bool:
    """Whether a few steps fit into memory and time."""
    model = _model(config, vocabulary)
    state = STATE_BYTES * parameters(model) * max(config.workers, 1)
    seconds = MIN_STEPS * _step_flops(config, vocabulary) / (PRODUCT_SHARE * _products(config, machine))
    return state < MEMORY_SHARE * available_memory() and seconds < 2 * TRAINING_SECONDS


def _steps(config: PretrainConfig, vocabulary: int, machine: MachineRates) -> int:
    """Steps that take about `TRAINING_SECONDS`."""
    steps = TRAINING_SECONDS * PRODUCT_SHARE * _products(config, machine) / _step_flops(config, vocabulary)
    return int(min(max(steps, MIN_STEPS), MAX_STEPS)) // LOG_STEPS * LOG_STEPS


def _step_flops(config: PretrainConfig, vocabulary: int) -> float:
    model = _model(config, vocabulary)
    return 3.0 * flops_per_token(model, model.context_length) * config.batch_tokens


def _model(config: PretrainConfig, vocabulary: int) -> TransformerConfig:
    return TransformerConfig(**config.model.model_dump(), vocabulary_size=vocabulary)


def _products(config: PretrainConfig, machine: MachineRates) -> float:
    """FLOPs per second of products in the config's precision; the best one if it is not known."""
    return machine.products.get(config.precision) or max(machine.products.values())


def _run(store: str, config: RunConfigBase, last_stage: str) -> RunSession:
    """Run in this process, without the flow engine."""
    session = RunSession.begin(RunRequest(config, store, last_stage=last_stage))
    with session.closing():
        for stage in session.stages:
            session.execute(stage)
    return session


def _training_rates(store: str, trained: Trained, machine: MachineRates) -> list[Rate]:
    """Rates of training and of its start; that of the steps alone, without the first ones and the checkpoint."""
    session = _run(store, calibration_config(trained, machine), "pretrain")
    costs = next(row for row in CostRecords(store).newest() if row.stage == "pretrain")
    metrics = session.artifacts["pretrain"].manifest.metrics
    learned = {rate.kind: rate for rate in learned_rates(costs)}
    rates = [rate for kind, rate in learned.items() if kind == "pretrain start"]
    volume = Volume(vocabulary_size=trained.vocabulary)
    work = PretrainStage().estimate(trained.config, volume, Capacity()).work[0]
    measured = metrics["tokens_per_second"] * metrics["flops_per_token"] / work.parallel
    rates.append(Rate(kind=work.kind, variant=work.variant, amount=work.amount, per_second=measured))
    table = cpu_rates()
    assumed = table.bf16_flops if work.kind == "train bf16" else table.fp32_flops
    like = [Rate(kind=kind, amount=1.0, per_second=table.fp32_flops * measured / assumed) for kind in LIKE_TRAINING]
    return [*rates, *like]


def _with_earlier(rates: Sequence[Rate]) -> tuple[Rate, ...]:
    """These rates, then those of earlier calibrations of other work."""
    known = {(rate.kind, rate.variant) for rate in rates}
    earlier = machine_rates()
    others = [rate for rate in earlier.rates if (rate.kind, rate.variant) not in known] if earlier else []
    return (*rates, *others)


def _warn_of_load(report: Report) -> None:
    with contextlib.suppress(OSError):
        load, cores = psutil.getloadavg()[0], psutil.cpu_count() or 1
        if load > 0.5 * cores:
            report(
                f"other programs keep {min(load, cores):.1f} of {cores} cores busy; what is measured is the speed "
                "beside them"
            )
