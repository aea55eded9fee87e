"""Learning rate schedules, and scaling rules for batch size and tokens.

- `learning_rate_at`: learning rate by the name of the schedule
- `cosine_with_warmup`, `linear_with_warmup`, `constant_then_decay`: the schedules

All begin with a linear warm-up to the peak and end at the floor. Linear decay to 0 is better than the usual cosine to a
tenth of the peak, increasingly so with more tokens per parameter (Bergsma et al. 2025, 2502.15938). Constant then decay
does not need the total steps before its decay begins: a long run can be evaluated at several lengths, with a decay
each.

Scaling of tuned settings to another batch size and length:

- Adam and AdamW: with k times the batch, the learning rate times sqrt(k), 1 - beta1 and 1 - beta2 times k, epsilon
  over sqrt(k) (Malladi et al. 2022, 2205.10782). It holds while noise dominates the gradient; beyond the critical batch
  a larger rate does not help. Muon's source gives no rule; sqrt(k) is common.
- SGD: the learning rate times k, after a warm-up (Goyal et al. 2017, 1706.02677), with the same limit.
- Weight decay of AdamW and Muon: a weight averages its updates over 1 / (learning rate * weight decay) steps; times the
  batch size, this is a time scale in tokens, whose optimum is a constant share of the run's tokens (of an epoch, if
  there are several; Wang and Aitchison 2024, 2405.13698). With k times the batch and sqrt(k) times the rate, this
  requires sqrt(k) times the decay; with n times the tokens at the same batch and rate, 1/n of it.
"""

import math
from typing import Literal, get_args

ScheduleKind = Literal["cosine", "linear", "constant_then_decay"]

DECAY_SHARE = 0.2
"""Share of all steps for the decay of `constant_then_decay`, as good as a cosine in Hägele et al. 2024 (2405.18392)."""


def learning_rate_at(
    step: int, kind: ScheduleKind, peak: float, floor: float, warmup_steps: int, total_steps: int
) -> float:
    """Learning rate of a step by the schedule `kind`; other arguments as in `cosine_with_warmup`.

    Raises:
        ValueError: if there is no such schedule.
    """
    match kind:
        case "cosine":
            return cosine_with_warmup(step, peak, floor, warmup_steps, total_steps)
        case "linear":
            return linear_with_warmup(step, peak, floor, warmup_steps, total_steps)
        case "constant_then_decay":
            return constant_then_decay(step, peak, floor, warmup_steps, total_steps)
    raise ValueError(f"schedule is {kind!r}; accepted are {', '.join(get_args(ScheduleKind))}")


def cosine_with_warmup(step: int, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of a step: linear warm-up to the peak, then half a cosine (Loshchilov and Hutter 2017, 1608.03983).

    Args:
        step: 1 for the first step, `total_steps` for the last.
        peak: learning rate at step `warmup_steps`.
        floor: learning rate at the last step.
        warmup_steps: steps of warm-up; 0 for none.
        total_steps: total number of steps.
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2


def linear_with_warmup(step: int, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of a step: linear warm-up to the peak, then linear decay to the floor.

    As in Bergsma et al. 2025, 2502.15938, with a floor of 0. Arguments as in `cosine_with_warmup`.
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    return floor + (peak - floor) * (total_steps - step) / (total_steps - warmup_steps)


def constant_then_decay(step: int, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of a step: linear warm-up, the peak, and decay to the floor in the last fifth of all steps.

    The decay is 1 - sqrt(progress), the best shape in Hägele et al. 2024 (2405.18392). A warm-up that extends into the
    last fifth shortens it. Arguments as in `cosine_with_warmup`.
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    first = max(warmup_steps, total_steps - max(1, round(DECAY_SHARE * total_steps)))
    if step <= first:
        return peak
    return floor + (peak - floor) * (1 - math.sqrt((step - first) / (total_steps - first)))
