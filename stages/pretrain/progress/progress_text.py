"""One line that says how pretraining goes.

- `progress_text`: of a row of the log
- `recent_tokens_per_second`: over the newest rows
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.pretrain.progress.loss_forecast import Forecast

RECENT_ROWS = 10


def progress_text(
    row: Mapping[str, Any], total_steps: int, tokens_per_second: float | None = None, forecast: Forecast | None = None
) -> str:
    """`step 880 of 1343, loss 3.51, 12,300 tokens/s, final loss about 3.2 (3.1 to 3.3)`.

    Args:
        row: of the log, with `step` and `loss`.
        total_steps: of the whole run.
        tokens_per_second: left out where it is not known yet.
        forecast: of the final loss; left out where it is too early.
    """
    parts = [f"step {row['step']} of {total_steps}", f"loss {row['loss']:.2f}"]
    if tokens_per_second is not None:
        parts.append(f"{_three_digits(tokens_per_second)} tokens/s")
    if forecast is not None:
        places = _places(forecast.high - forecast.low)
        loss, low, high = (f"{value:.{places}f}" for value in (forecast.loss, forecast.low, forecast.high))
        parts.append(f"final loss about {loss} ({low} to {high})")
    return ", ".join(parts)


def recent_tokens_per_second(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Tokens per second over the newest rows of the process group that wrote the last one.

    Args:
        rows: of the log, with `tokens` so far and `seconds` since that group began.

    Returns:
        None where that group has written only one row: how much it had trained before is not in the log.
    """
    newest = rows[-RECENT_ROWS:]
    first = len(newest) - 1
    while first > 0 and newest[first - 1]["seconds"] < newest[first]["seconds"]:
        first -= 1
    if first >= len(newest) - 1:
        return None
    seconds = newest[-1]["seconds"] - newest[first]["seconds"]
    return float((newest[-1]["tokens"] - newest[first]["tokens"]) / seconds)


def _places(width: float) -> int:
    """Decimals that an interval of this width is worth."""
    return 1 if width >= 0.2 else 2 if width >= 0.02 else 3


def _three_digits(number: float) -> str:
    """`12,300` of 12,345."""
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 1 else f"{number:.3g}"
