"""Compress: passes in the order of the config, each measured on the same held-out text."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from data_schemas.artifact_kinds import COMPRESSED_MODEL, MODEL, TOKENS, ArtifactKind
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import PROCESS_BYTES, START_RAY_TRAIN_SECONDS, cpu_rates, workers_or_all
from infra.precision import resolved_precision
from infra.store import provenance
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.capacity import Capacity
from stages.compress.config import CompressConfig
from stages.compress.passes.distill import DistillPass
from stages.stage import Stage, StageContext

if TYPE_CHECKING:
    from infra.workers.ray_training import TrainingWorkers
    from modeling.transformer import Transformer
    from stages.compress.progress import PassProgress

BYTES_PER_TOKEN = 3.5
MEASURED_TIMES = 1.5
"""Forward passes over the held-out text per measurement, with generation and the counting of zeros."""
MEASURE_SECONDS = 5.0
"""Seconds per measurement that do not depend on the network."""
START_SECONDS = 1.0


class CompressStage(Stage):
    """Make the pretrained network smaller and faster, pass by pass."""

    name = "compress"
    version = 8
    Config = CompressConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"model": MODEL, "tokens": TOKENS}
    output = COMPRESSED_MODEL

    def packages(self, config: CompressConfig) -> tuple[str, ...]:
        """Passes and recoveries are computed by torch."""
        return ("torch",)

    def estimate(self, config: CompressConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Recovery training and its teacher at the rate of a training step, and a measurement after every pass."""
        measurements = len(config.passes) + 1
        measured_tokens = config.measured_bytes / BYTES_PER_TOKEN * MEASURED_TIMES * measurements
        measuring_flops, training_flops = 2.0 * volume.parameters * measured_tokens, _recovery_flops(config, volume)
        cores, starts = workers_or_all(None), len(config.recoveries)
        workers = config.workers if config.workers > 1 and starts else 0
        rate = cpu_rates().fp32_flops
        passes = tuple(dict.fromkeys(settings.kind for settings in config.passes))
        return Estimate.of_work(
            Work(
                kind="compress train", variant=f"{config.precision}, {workers or 1} workers", amount=training_flops,
                rate=rate, parallel=max(workers, cores), phases=passes,
            ),
            Work(
                kind="compress start workers", amount=starts if workers else 0, rate=1 / START_RAY_TRAIN_SECONDS,
                phases=passes,
            ),
            Work(
                kind="compress forward", amount=measuring_flops, rate=rate, parallel=cores, phases=("measure",),
            ),
            Work(
                kind="compress measure", amount=measurements, rate=1 / MEASURE_SECONDS, phases=("measure",),
            ),
            Work(kind="compress start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=(2 + workers) * PROCESS_BYTES + 24 * volume.parameters * (1 + workers),
            flops=measuring_flops + training_flops,
            output=volume,
        )  # fmt: skip

    def run(
        self, config: CompressConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Apply and measure each pass; passes that a killed run finished are not repeated."""
        from modeling.export.model_files import model_to_files
        from stages.compress.measurement import HeldOutText, measure
        from stages.compress.pass_context import PassContext

        pretrained, tokens = inputs["model"], inputs["tokens"]
        teacher = partial(_read_model, pretrained)
        workers, precision = _training_workers(config), resolved_precision(config.precision, config.computes_on)
        held_out = HeldOutText.read(tokens, config.measured_bytes)
        progress = _progress(config, inputs, context)
        model = teacher()
        rows: list[dict[str, Any]] = []
        steps = (None, *config.passes)  # the teacher is measured first
        for index, settings in enumerate(steps):
            name = settings.kind if settings else "teacher"
            context.listener.advanced("passes", index, len(steps), name)
            if finished := progress.finished(index):
                model, row = finished
                context.incomplete.append("passes were finished before")
            else:
                if settings:
                    work = context.work.child(f"pass-{index}")
                    pass_context = PassContext(
                        tokens, teacher, config.seed + index, work, context.listener, precision, workers
                    )
                    with context.phase(name):
                        model = settings.apply(model, pass_context).eval()
                with context.phase("measure"):
                    row = measure(name, settings, model, held_out, teacher=rows[0] if rows else None)
                progress.save(index, model, row)
            rows.append(row)
            context.listener.logged(f"{name}: {row['bytes'] / 1e6:.2f} MB, {row['bits_per_byte']:.3f} bits per byte")
        context.listener.advanced("passes", len(steps), len(steps), "all passes")

        for path, data in model_to_files(model).items():
            out.write(path, data)
        out.write("tokenizer.json", pretrained.read("tokenizer.json"))
        out.metrics |= {"passes": rows, "bytes_ratio": rows[0]["bytes"] / rows[-1]["bytes"]}
        out.volume = pretrained.manifest.volume


def _recovery_flops(config: CompressConfig, volume: Volume) -> float:
    """Forward and backward of the trained network, and forward of the teacher."""
    flops, parameters = 0.0, float(volume.parameters)
    for settings in config.passes:
        if isinstance(settings, DistillPass) and settings.layers and settings.width:
            parameters = settings.width * (12.0 * settings.layers * settings.width + volume.vocabulary_size)
        recovery = getattr(settings, "recovery", None)
        if recovery is not None:
            teacher = 2.0 * volume.parameters if recovery.distill else 0.0
            flops += recovery.tokens * (6.0 * parameters + teacher)
    return flops


def _training_workers(config: CompressConfig) -> "TrainingWorkers":
    """Workers of all recoveries; a lack of room is reported before the first pass, not after hours of earlier ones."""
    from infra.workers.ray_training import TrainingWorkers, check_room

    count = max(1, config.workers)
    workers = TrainingWorkers("compress", count, count, config.cpus_per_worker, config.max_failures)
    if count > 1 and config.recoveries:
        check_room(workers)
    return workers


def _progress(config: CompressConfig, inputs: Mapping[str, Artifact], context: StageContext) -> "PassProgress":
    from stages.compress.progress import PassProgress, prefix_keys

    made_from = {
        "inputs": {name: artifact.manifest.digest for name, artifact in inputs.items()},
        "version": CompressStage.version,
        "measured_bytes": config.measured_bytes,
        "precision": config.precision,
        "packages": provenance.declared_versions(CompressStage().packages(config)),
        "seed": config.seed,
    }
    return PassProgress(context.work, context.shared, prefix_keys(config.passes, made_from))


def _read_model(artifact: Artifact) -> "Transformer":
    from modeling.export.model_files import model_from_files

    return model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
