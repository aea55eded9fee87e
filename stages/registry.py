"""The stages in order, and the wiring of their inputs.

- `STAGES`, `stage_named`; `stages_of`: those of one run; `wiring`
- `StageName`: the names as a type, so that forms and schemas list them
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from data_schemas.errors import NotFoundError
from stages.benchmark.stage import BenchmarkStage
from stages.clean.stage import CleanStage
from stages.clean.verdict import rules_of
from stages.compress.stage import CompressStage
from stages.dedup.stage import DedupStage
from stages.ingest.stage import IngestStage
from stages.pretrain.stage import PretrainStage
from stages.profile.stage import ProfileStage
from stages.stage import Stage
from stages.synthesize.stage import SynthesizeStage
from stages.tokenize.stage import TokenizeStage

STAGES: tuple[Stage, ...] = (
    IngestStage(),
    CleanStage(),
    DedupStage(),
    SynthesizeStage(rules_of),
    ProfileStage(),
    TokenizeStage(),
    PretrainStage(),
    CompressStage(),
    BenchmarkStage(),
)

if TYPE_CHECKING:
    StageName = str
else:
    StageName = Literal[tuple(stage.name for stage in STAGES)]


def stage_named(name: str) -> Stage:
    """The stage of this name.

    Raises:
        NotFoundError: if there is none; lists the names.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise NotFoundError(f"no stage {name!r}; the stages are: {', '.join(stage.name for stage in STAGES)}")


def stages_of(sections: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages of a run, in order: an optional stage is one of them if its section of the config is not null."""
    return tuple(stage for stage in STAGES if not stage.is_optional or sections.get(stage.name) is not None)


def wiring(stages: Sequence[Stage]) -> dict[str, dict[str, str]]:
    """Stage -> input name -> the nearest earlier one of `stages` whose output has the input's kind."""
    wires: dict[str, dict[str, str]] = {}
    for position, stage in enumerate(stages):
        wires[stage.name] = {}
        for name, kind in stage.inputs.items():
            producers = [earlier.name for earlier in stages[:position] if earlier.output == kind]
            assert producers, f"no stage before {stage.name} outputs {kind.label} for its input {name!r}"
            wires[stage.name][name] = producers[-1]
    return wires
