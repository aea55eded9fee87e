"""Family of runs of a scaling law: the same text, tokenizer, kind of network and way to train.

- `family`: the values that they share; `family_digest`: their digest, by which a config finds its fit
- `check_family`: refuses runs that differ in more than what is scaled
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from data_schemas.config import canonical_json
from data_schemas.errors import ConfigError
from flows.config.run_config import RunConfigBase
from stages.registry import wiring

TRAINING = "pretrain"
SIZE_FIELDS = frozenset({"layers", "width", "heads", "feed_forward_width"})
SCALED_FIELDS = frozenset({"tokens", "peak_learning_rate", "batch_tokens", "seed"})
"""Fields of `pretrain` that may differ between runs."""
NEUTRAL_FIELDS = frozenset(
    {"micro_batch", "precision", "deterministic", "compile", "log_every_steps", "sample_every_steps", "sample_prompts",
     "sample_tokens"}
)  # fmt: skip
"""Fields of `pretrain` that change a score by less than another seed does."""


def family(config: RunConfigBase) -> dict[str, Any]:
    """Stage -> fields that decide its output, without those of `pretrain` that are scaled or neutral."""
    wires, needed = wiring(config.stages), [TRAINING]
    for stage in needed:
        needed += [producer for producer in wires[stage].values() if producer not in needed]
    values: dict[str, Any] = {name: config.stage_config(name).key_fields() for name in needed}
    training = values[TRAINING]
    omitted = SCALED_FIELDS | NEUTRAL_FIELDS
    values[TRAINING] = {name: value for name, value in training.items() if name not in omitted | {"model"}}
    values["model"] = {name: value for name, value in training["model"].items() if name not in SIZE_FIELDS}
    return values


def family_digest(config: RunConfigBase) -> str:
    """Sixteen hexadecimal digits that identify a family."""
    return hashlib.sha256(canonical_json(family(config)).encode()).hexdigest()[:16]


def check_family(configs: Mapping[str, RunConfigBase]) -> None:
    """Check that runs belong to one family.

    Raises:
        ConfigError: naming the runs, by their label, and the first field that differs.
    """
    families = {label: dict(_leaves(family(config), ())) for label, config in configs.items()}
    (first, expected), *others = families.items()
    for label, values in others:
        for field in dict.fromkeys([*expected, *values]):
            if expected.get(field) != values.get(field):
                raise ConfigError(
                    f"{'.'.join(field)} is {expected.get(field)} for {first!r} and {values.get(field)} for {label!r}; "
                    "runs of one scaling law may differ in the network's size (layers, width, heads, "
                    "feed_forward_width) and in tokens, batch_tokens, peak_learning_rate and seed of pretrain only"
                )


def _leaves(values: Mapping[str, Any], path: tuple[str, ...]) -> Sequence[tuple[tuple[str, ...], Any]]:
    rows: list[tuple[tuple[str, ...], Any]] = []
    for name, value in values.items():
        rows += _leaves(value, (*path, name)) if isinstance(value, Mapping) else [((*path, name), value)]
    return rows
