"""The list of stages, in order, and how each one's inputs are wired."""

from collections.abc import Sequence

from data_schemas.errors import NotFoundError
from stages.benchmark.stage import BenchmarkStage
from stages.clean.stage import CleanStage
from stages.compress.stage import CompressStage
from stages.dedup.stage import DedupStage
from stages.ingest.stage import IngestStage
from stages.pretrain.stage import PretrainStage
from stages.stage import Stage
from stages.tokenize.stage import TokenizeStage

# synthesize (corpus -> corpus) and profile (corpus -> profile) stand between dedup and tokenize.
STAGES: tuple[Stage, ...] = (
    IngestStage(),
    CleanStage(),
    DedupStage(),
    TokenizeStage(),
    PretrainStage(),
    CompressStage(),
    BenchmarkStage(),
)


def stage_named(name: str) -> Stage:
    """A stage by its name.

    Raises:
        NotFoundError: listing the names there are.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise NotFoundError(f"no stage {name!r}; the stages are: {', '.join(stage.name for stage in STAGES)}")


def wiring(stages: Sequence[Stage] = STAGES) -> dict[str, dict[str, str]]:
    """Stage -> input name -> the nearest earlier stage whose output has the input's kind."""
    wires: dict[str, dict[str, str]] = {}
    for position, stage in enumerate(stages):
        wires[stage.name] = {}
        for name, kind in stage.inputs.items():
            makers = [earlier.name for earlier in stages[:position] if earlier.output == kind]
            assert makers, f"nothing before {stage.name} makes {kind.label} for its input {name!r}"
            wires[stage.name][name] = makers[-1]
    return wires
