"""Progress line of pretraining.

- `progress_text`: the line for a row of the log
- `recent_tokens_per_second`: throughput over the newest rows
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
        row: row of the log, with `step` and `loss`.
        total_steps: steps of the whole run.
        tokens_per_second: throughput; None if unknown yet.
        forecast: forecast of the final loss; None if it is too early.
    """
    parts = [f"step {row['step']} of {total_steps}", f"loss {row['loss']:.2f}"]
    if tokens_per_second is not None:
        parts.append(f"{_three_digits(tokens_per_second)} tokens/s")
    if forecast is not None:
        decimals = _decimals(forecast.high - forecast.low)
        loss, low, high = (f"{value:.{decimals}f}" for value in (forecast.loss, forecast.low, forecast.high))
        parts.append(f"final loss about {loss} ({low} to {high})")
    return ", ".join(parts)


def recent_tokens_per_second(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Tokens per second over the newest rows of the current process group.

    Args:
        rows: rows of the log, with cumulative `tokens`, and `seconds` since the process group started.

    Returns:
        None if the group has written only one row: the log does not hold its tokens at the start.
    """
    newest = rows[-RECENT_ROWS:]
    first = len(newest) - 1
    while first > 0 and newest[first - 1]["seconds"] < newest[first]["seconds"]:
        first -= 1
    if first >= len(newest) - 1:
        return None
    seconds = newest[-1]["seconds"] - newest[first]["seconds"]
    return float((newest[-1]["tokens"] - newest[first]["tokens"]) / seconds)


def _decimals(width: float) -> int:
    """Significant decimals of a value with an interval of this width."""
    return 1 if width >= 0.2 else 2 if width >= 0.02 else 3


def _three_digits(number: float) -> str:
    """Three significant digits: `12,300` for 12,345."""
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 1 else f"{number:.3g}"
