"""The config of a mixture of experts. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ExpertsConfig(BaseModel):
    """Mixture of experts: each token passes through a few of many feed-forwards (Shazeer et al. 2017, 1701.06538)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    experts: int = Field(8, gt=1, description="experts per layer")
    active: int = Field(2, gt=0, description="experts that each token passes through")
    expert_width: int | None = Field(
        None, gt=1, description="neurons of each expert; the feed_forward_width by default"
    )
    shared_width: int = Field(
        0, ge=0, description="neurons of a shared expert that every token passes through (DeepSeekMoE, 2401.06066, 3.2)"
    )
    every: int = Field(1, gt=0, description="every n-th layer has experts, the others one feed-forward")
    routing: Literal["token_choice", "expert_choice"] = Field(
        "token_choice",
        description="tokens choose their experts, or experts their tokens (Zhou et al. 2022, 2202.09368); the latter "
        "only in training, because it depends on later tokens: in evaluation, tokens choose",
    )
    capacity_factor: float | None = Field(
        None,
        gt=0,
        description="most tokens per expert in training, as a multiple of an equal share; the others skip the expert "
        "(Switch, Fedus et al. 2021, 2101.03961, 2.2). None: no limit; for expert_choice, 1",
    )
    balance_loss: float = Field(
        0.01, ge=0, description="weight of the load-balancing loss (Switch, 2.2, equation 4); token_choice only"
    )
    router_z_loss: float = Field(
        0.001, ge=0, description="weight of the squared log-sum-exp of the router's logits (ST-MoE, 2202.08906, 3.3)"
    )

    @model_validator(mode="after")
    def _active_fit(self) -> "ExpertsConfig":
        if self.active > self.experts:
            raise ValueError(
                f"active is {self.active}, but there are {self.experts} experts; active can be 1 to {self.experts}"
            )
        return self
