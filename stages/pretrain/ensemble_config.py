"""Which averages of weights a run tries in the end; without torch, as a plan reads it."""

from pydantic import Field

from data_schemas.config import FrozenConfig


class EnsembleConfig(FrozenConfig):
    """Averages of weights that take the last step's place where they are better on held-out text."""

    checkpoints: int = Field(
        4, ge=0, description="newest members to average, the last step's among them; 0 or 1: only the last"
    )
    spacing_share: float = Field(
        0.01, gt=0, le=1, description="share of the steps from one member to the next (LAWA, 2209.14981)"
    )
    half_life_share: float = Field(
        0.005, ge=0, le=1, description="half-life of the exponential average, as a share of the steps; 0: none is kept"
    )
    heldout_rows: int = Field(
        64,
        gt=0,
        description="windows of held-out text, a context length each: half of them choose, the others tell what the "
        "choice gained",
    )
    logits: bool = Field(
        False,
        description="measure the mean of all members' predictions as well: as many networks in memory as there are "
        "members; it never takes the last one's place",
    )

    def steps(self, total_steps: int) -> list[int]:
        """Steps whose checkpoints are members, rising; the last one is `total_steps`."""
        spacing = max(1, round(self.spacing_share * total_steps))
        members = [total_steps - spacing * number for number in range(max(1, self.checkpoints))]
        return [step for step in reversed(members) if step > 0]

    def half_life(self, total_steps: int) -> float:
        """Of the exponential average, in steps, at least 1; 0 where none is kept."""
        return max(1.0, self.half_life_share * total_steps) if self.half_life_share else 0.0
