"""Compression: passes in the order of the config, each measured on the same held-out text."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_schemas.artifact_kinds import COMPRESSED_MODEL, MODEL, TOKENS
from data_schemas.config import FrozenConfig, StageConfig
from data_schemas.manifest import Estimate, Volume
from infra.artifacts import Artifact, ArtifactWriter
from infra.hardware import PROCESS_BYTES, cpu_rates, workers_or_all
from stages.stage import Stage, StageContext


class PrunePass(FrozenConfig):
    """Iterative magnitude pruning with recovery training between rounds (Han et al. 2015, 1506.02626)."""

    kind: Literal["prune"] = "prune"
    sparsity: float = Field(0.5, gt=0, lt=1, description="share of the decoder's linear weights that end as zeros")
    rounds: int = Field(3, ge=1, description="prune and recover this many times, on a cubic schedule (1710.01878)")
    recovery_tokens: int = Field(400_000, ge=0, description="training tokens over all rounds together")
    batch_tokens: int = Field(8_192, gt=0, description="tokens per recovery step")
    learning_rate: float = Field(3e-4, gt=0, description="AdamW's peak in each round's recovery")


class Int8Pass(FrozenConfig):
    """Weights and activations in int8 with integer matrix products; weights per row, activations per token."""

    kind: Literal["int8"] = "int8"


CompressionPass = Annotated[PrunePass | Int8Pass, Field(discriminator="kind")]


class CompressConfig(StageConfig):
    """Which passes, in which order, and what they are measured on."""

    passes: tuple[CompressionPass, ...] = Field((PrunePass(), Int8Pass()), description="in the order they are applied")
    measured_bytes: int = Field(200_000, gt=0, description="held-out text that every pass is measured on, in bytes")
    seed: int = Field(0, ge=0, description="of the recovery's data order")

    @model_validator(mode="after")
    def _order_works(self) -> "CompressConfig":
        kinds = [one.kind for one in self.passes]
        if "int8" in kinds[:-1]:
            after = kinds[kinds.index("int8") + 1]
            raise ValueError(
                f"the pass {after!r} cannot follow 'int8': integer weights are not trained any further; "
                "the order that works is prune, then int8 last"
            )
        return self


class CompressStage(Stage):
    """Make the pretrained network smaller and faster, pass by pass."""

    name = "compress"
    version = 1
    Config = CompressConfig
    inputs: Mapping = {"model": MODEL, "tokens": TOKENS}  # type: ignore[type-arg]
    output = COMPRESSED_MODEL

    def estimate(self, config: CompressConfig, volume: Volume) -> Estimate:
        """Recovery training at the rate of a training step, plus measuring after every pass."""
        recovery = sum(one.recovery_tokens for one in config.passes if isinstance(one, PrunePass))
        flops_per_token = 2.0 * volume.parameters
        measured = config.measured_bytes / 3.5 * 1.5 * (len(config.passes) + 1)
        flops = flops_per_token * (3 * recovery + measured)
        measuring_seconds = 5.0 * (len(config.passes) + 1)
        return Estimate(
            seconds=flops / (cpu_rates().fp32_flops * workers_or_all(None)) + measuring_seconds,
            peak_memory_bytes=2 * PROCESS_BYTES + 24 * volume.parameters,
            flops=flops,
            output=volume,
        )

    def run(
        self, config: CompressConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Apply and measure each pass; a pass that a killed run had finished is taken up, not repeated."""
        from modeling.checkpoint import model_from_files, model_to_files
        from stages.compress.measurement import HeldOutText, measure
        from stages.compress.passes import apply_pass
        from stages.compress.progress import PassProgress

        teacher, tokens = inputs["model"], inputs["tokens"]
        held_out = HeldOutText.read(tokens, config.measured_bytes)
        model = model_from_files(teacher.read("config.json"), teacher.read("model.safetensors"))
        progress = PassProgress(context.work)
        rows = []
        steps = [None, *config.passes]
        for number, one in enumerate(steps):
            name = one.kind if one else "teacher"
            context.listener.advanced("passes", number, len(steps), name)
            finished = progress.finished(number)
            if finished:
                model, row = finished
            else:
                with context.phase(name):
                    model = apply_pass(one, model, tokens, config.seed, context) if one else model
                with context.phase("measure"):
                    row = measure(name, one, model, held_out)
                progress.save(number, model, row)
            rows.append(row)
            context.listener.said(f"{name}: {row['bytes'] / 1e6:.2f} MB, {row['bits_per_byte']:.3f} bits per byte")
        context.listener.advanced("passes", len(steps), len(steps), "all passes")

        for path, data in model_to_files(model).items():
            out.write(path, data)
        out.write("tokenizer.json", teacher.read("tokenizer.json"))
        out.metrics |= {"passes": rows, "bytes_ratio": rows[0]["bytes"] / rows[-1]["bytes"]}
        out.volume = teacher.manifest.volume
