"""Compression: passes in the order of the config, each measured on the same held-out text."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from data_schemas.artifact_kinds import COMPRESSED_MODEL, MODEL, TOKENS, ArtifactKind
from data_schemas.config import StageConfig, runtime_field
from data_schemas.manifest import Estimate, Volume
from infra.hardware import PROCESS_BYTES, START_RAY_TRAIN_SECONDS, cpu_rates, workers_or_all
from infra.store.artifacts import Artifact, ArtifactWriter
from stages.compress.attention_config import LinearAttentionPass, LshAttentionPass
from stages.compress.distill_config import DistillPass
from stages.compress.low_rank_config import LowRankPass
from stages.compress.prune_config import PrunePass
from stages.compress.quantize_config import Int8Pass, PackedPass
from stages.compress.recovery_config import Recovery
from stages.compress.sparse_config import SparseActivationsPass
from stages.compress.structured_config import StructuredPass
from stages.stage import Stage, StageContext

if TYPE_CHECKING:
    from infra.workers.ray_training import TrainingWorkers

CompressionPass = Annotated[
    DistillPass
    | StructuredPass
    | LinearAttentionPass
    | LshAttentionPass
    | LowRankPass
    | SparseActivationsPass
    | PrunePass
    | Int8Pass
    | PackedPass,
    Field(discriminator="kind"),
]
ORDER = (
    ("distill", "structured"),
    ("linear_attention", "lsh_attention", "low_rank"),
    ("sparse_activations", "prune"),
    ("int8", "int4", "int2"),
)
"""Passes of one group may come in any order, and more than once but for the last; those of a later group come later."""
REASONS = {
    1: "a network whose modules were replaced is not cut any further",
    2: "the zeros would be lost",
    3: "integer weights are not trained any further",
}


class CompressConfig(StageConfig):
    """Which passes, in which order, and what they are measured on."""

    passes: tuple[CompressionPass, ...] = Field((PrunePass(), Int8Pass()), description="in the order they are applied")
    measured_bytes: int = Field(200_000, gt=0, description="held-out text that every pass is measured on, in bytes")
    seed: int = Field(0, ge=0, description="of the data order of recoveries")
    workers: int = runtime_field(
        0,
        ge=0,
        description="Ray Train workers that share the rows of each recovery step; 0 or 1 trains in this process; their "
        "number changes the order in which numbers are added up, and nothing else",
    )
    max_failures: int = runtime_field(3, ge=0, description="dead workers survived before the attempt fails")
    cpus_per_worker: float = runtime_field(
        1.0, gt=0, description="processors that Ray sets aside for each worker where there are no GPUs"
    )

    @property
    def recoveries(self) -> list[Recovery]:
        """Those of passes that train."""
        found = (getattr(one, "recovery", None) for one in self.passes)
        return [recovery for recovery in found if recovery and recovery.tokens]

    @model_validator(mode="after")
    def _order_works(self) -> "CompressConfig":
        groups = {kind: number for number, group in enumerate(ORDER) for kind in group}
        for before, after in zip(self.passes, self.passes[1:], strict=False):
            earlier, later = groups[before.kind], groups[after.kind]
            if later < earlier or earlier == later == len(ORDER) - 1:
                works = ", then ".join(" or ".join(group) for group in ORDER)
                raise ValueError(
                    f"the pass {after.kind!r} cannot follow {before.kind!r}: {REASONS[earlier]}; "
                    f"the order that works is {works}"
                )
        return self


def _recovery_flops(config: CompressConfig, volume: Volume) -> float:
    """Forward and backward of what is trained, and the teacher's forward beside it."""
    flops, parameters = 0.0, float(volume.parameters)
    for one in config.passes:
        if isinstance(one, DistillPass) and one.layers and one.width:
            parameters = one.width * (12.0 * one.layers * one.width + volume.vocabulary_size)
        recovery = getattr(one, "recovery", None)
        if recovery is not None:
            teacher = 2.0 * volume.parameters if recovery.distill else 0.0
            flops += recovery.tokens * (6.0 * parameters + teacher)
    return flops


def _training_workers(config: CompressConfig) -> "TrainingWorkers":
    """Refused before the first pass where there is no room, and not behind passes that may take hours."""
    from infra.workers.ray_training import TrainingWorkers, check_room

    count = max(1, config.workers)
    workers = TrainingWorkers("compress", count, count, config.cpus_per_worker, config.max_failures)
    if count > 1 and config.recoveries:
        check_room(workers)
    return workers


class CompressStage(Stage):
    """Make the pretrained network smaller and faster, pass by pass."""

    name = "compress"
    version = 4
    Config = CompressConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"model": MODEL, "tokens": TOKENS}
    output = COMPRESSED_MODEL

    def estimate(self, config: CompressConfig, volume: Volume) -> Estimate:
        """Recovery training at the rate of a training step, the teacher beside it, plus measuring after every pass."""
        measured = config.measured_bytes / 3.5 * 1.5 * (len(config.passes) + 1)
        measuring_flops, training_flops = 2.0 * volume.parameters * measured, _recovery_flops(config, volume)
        cores, starts = workers_or_all(None), len(config.recoveries)
        workers = config.workers if config.workers > 1 and starts else 0
        seconds = (measuring_flops / cores + training_flops / max(workers, cores)) / cpu_rates().fp32_flops
        seconds += 5.0 * (len(config.passes) + 1)  # of measuring besides
        return Estimate(
            seconds=seconds + (START_RAY_TRAIN_SECONDS * starts if workers else 0.0),
            peak_memory_bytes=(2 + workers) * PROCESS_BYTES + 24 * volume.parameters * (1 + workers),
            flops=measuring_flops + training_flops,
            output=volume,
        )

    def run(
        self, config: CompressConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Apply and measure each pass; a pass that a killed run had finished is taken up, not repeated."""
        from modeling.export.model_files import model_from_files, model_to_files
        from modeling.transformer import Transformer
        from stages.compress.measurement import HeldOutText, measure
        from stages.compress.pass_context import PassContext
        from stages.compress.passes.kinds import apply_pass
        from stages.compress.progress import PassProgress, prefix_keys

        pretrained, tokens = inputs["model"], inputs["tokens"]
        workers = _training_workers(config)

        def teacher() -> Transformer:
            return model_from_files(pretrained.read("config.json"), pretrained.read("model.safetensors"))

        held_out = HeldOutText.read(tokens, config.measured_bytes)
        model = teacher()
        made_from = {
            "inputs": {name: artifact.manifest.digest for name, artifact in inputs.items()},
            "version": self.version,
            "measured_bytes": config.measured_bytes,
            "seed": config.seed,
        }
        progress = PassProgress(context.work, context.shared, prefix_keys(config.passes, made_from))
        rows: list[dict[str, Any]] = []
        steps = [None, *config.passes]
        for number, one in enumerate(steps):
            name = one.kind if one else "teacher"
            context.listener.advanced("passes", number, len(steps), name)
            finished = progress.finished(number)
            if finished:
                model, row = finished
            else:
                work = context.work.child(f"pass-{number}")
                given = PassContext(tokens, teacher, config.seed + number, work, context.listener, workers)
                with context.phase(name):
                    model = apply_pass(one, model, given) if one else model
                with context.phase("measure"):
                    row = measure(name, one, model, held_out, rows[0] if rows else None)
                progress.save(number, model, row)
            rows.append(row)
            context.listener.logged(f"{name}: {row['bytes'] / 1e6:.2f} MB, {row['bits_per_byte']:.3f} bits per byte")
        context.listener.advanced("passes", len(steps), len(steps), "all passes")

        for path, data in model_to_files(model).items():
            out.write(path, data)
        out.write("tokenizer.json", pretrained.read("tokenizer.json"))
        out.metrics |= {"passes": rows, "bytes_ratio": rows[0]["bytes"] / rows[-1]["bytes"]}
        out.volume = pretrained.manifest.volume
