"""Rates that estimates are made of, measured on one reference core (docs/results.md); reports hold them to account."""

import functools
from dataclasses import dataclass

from infra.provenance import device
from infra.ray_session import cpu_count


@dataclass(frozen=True)
class CpuRates:
    """What one core does in a second."""

    fp32_flops: float
    """Training step, fp32, including everything that is not a matrix product."""
    bf16_flops: float
    """The same under bfloat16 autocast."""


# A training step of the demo's shape on one core, the other core busy with the second worker.
WITH_AVX512_BF16 = CpuRates(fp32_flops=60e9, bf16_flops=90e9)
WITH_AVX2 = CpuRates(fp32_flops=25e9, bf16_flops=8e9)

START_RAY_SECONDS = 6.0
START_RAY_TRAIN_SECONDS = 15.0
PROCESS_BYTES = 450 * 2**20
"""Resident memory of a process that has imported torch."""


@functools.cache
def cpu_rates() -> CpuRates:
    """Rates of this machine's processor by its instruction set."""
    return WITH_AVX512_BF16 if has_fast_bf16() else WITH_AVX2


@functools.cache
def has_fast_bf16() -> bool:
    """True where the processor multiplies bfloat16 natively; elsewhere it is emulated and slower than fp32."""
    flags = device().get("flags", ())
    return "avx512_bf16" in flags or "amx_bf16" in flags


def workers_or_all(workers: int | None) -> int:
    """A configured number of workers, or one per core."""
    return workers or cpu_count()
