"""Some of a run's stages, in order, and what passes between them.

- `stages_until`, `stages_from`: the stages up to one, and from one to another
- `stages_read`: the earlier stages that some read; `volume_before`: the volume that reaches a stage
"""

from collections.abc import Mapping, Sequence

from data_schemas.manifest import Volume
from stages.registry import wiring
from stages.stage import Stage


def stages_until(stages: Sequence[Stage], last_stage: str | None) -> list[Stage]:
    """Those of `stages` up to and including `last_stage`; by default all."""
    names = [stage.name for stage in stages]
    return list(stages[: names.index(last_stage) + 1] if last_stage else stages)


def stages_from(stages: Sequence[Stage], first: str | None, last_stage: str | None) -> list[Stage]:
    """Those of `stages` from `first` to `last_stage`."""
    return stages_until(stages, last_stage)[len(stages_until(stages, first)) - 1 if first else 0 :]


def stages_read(stages: Sequence[Stage], reading: Sequence[Stage]) -> list[str]:
    """Names of those of `stages` whose artifacts `reading` reads, without those of `reading` themselves, in order."""
    wires, own = wiring(stages), {stage.name for stage in reading}
    producers = {producer for stage in reading for producer in wires[stage.name].values()} - own
    return [stage.name for stage in stages if stage.name in producers]


def volume_before(stages: Sequence[Stage], stage: Stage, volumes: Mapping[str, Volume]) -> Volume:
    """Volume of the nearest one of `stages` that `stage` reads; empty if it reads none."""
    preceding = stages_read(stages, [stage])
    return volumes[preceding[-1]] if preceding else Volume()
