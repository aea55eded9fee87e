"""Hardware rates for estimates, measured on one core (docs/results.md); reports compare them with measurements."""

import functools
import time
from dataclasses import dataclass

from infra.control_groups import cpu_count
from infra.rates.machine_rates import machine_rates
from infra.store.provenance import device


@dataclass(frozen=True)
class CpuRates:
    """Throughput of one core in FLOPs per second."""

    fp32_flops: float
    """Training step in fp32, including everything that is not a matrix product."""
    bf16_flops: float
    """The same under bfloat16 autocast."""


# A training step of the demo's shape on one core, the other core busy with the second worker.
AVX512 = CpuRates(fp32_flops=78e9, bf16_flops=45e9)
AVX512_FAST_BF16 = CpuRates(fp32_flops=60e9, bf16_flops=120e9)
# Without AVX512: two cores of a Zen 1 EPYC, which has no vector instructions for bfloat16.
AVX2 = CpuRates(fp32_flops=23e9, bf16_flops=2e9)

BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}
CLEARLY_FASTER = 1.5
"""Products alone must gain this much: casts and all that is no product take a part of it in a step."""

START_RAY_TRAIN_SECONDS = 15.0
RUNTIME_BYTES = 1_000 * 2**20
"""Resident memory of the command, the temporary Prefect server and an idle Ray, in every stage."""
DATA_PROCESS_BYTES = 130 * 2**20
"""Resident memory of a worker process that handles text and Arrow tables."""
MIN_PARTITION_BYTES, MAX_PARTITION_BYTES = 8_000_000, 512_000_000
PARTITIONS = 2_000
"""Number of partitions of a large corpus: enough for a thousand workers, and few enough to list in one request."""
MEMORY_PER_PARTITION_BYTE = 4
PROCESS_BYTES = 600 * 2**20
"""Resident memory of a process that computes with torch."""

TENSOR_CORE_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
    "V100": 125e12,
}
"""Dense 16-bit FLOPs per second from the vendor's data sheet, by a part of the device's name."""
MATMUL_SIZE = 1024
MATMUL_ROUNDS = 3


@functools.cache
def cpu_rates() -> CpuRates:
    """Rates of this machine's processor."""
    if has_fast_bf16():
        return AVX512_FAST_BF16
    return AVX512 if "avx512f" in device()["flags"] else AVX2


@functools.cache
def has_fast_bf16() -> bool:
    """True if bfloat16 matrix products are clearly faster than fp32 ones, as measured on this machine.

    AMX and AMD's AVX512_BF16 are (425 against 186 GFLOP/s on two Zen 4 cores); Intel's AVX512_BF16 without AMX is not
    (181 against 221 GFLOP/s on two cores), nor are processors without instructions for it, which are not measured. The
    first call on a machine takes two seconds; the figures are kept in the user's cache folder.
    """
    if not BF16_INSTRUCTIONS & set(device()["flags"]):
        return False
    rates = machine_rates(measure=True)
    assert rates is not None
    return rates.products["bf16"] >= CLEARLY_FASTER * rates.products["fp32"]


def workers_or_all(workers: int | None) -> int:
    """The configured number of workers, by default one per core."""
    return workers or cpu_count()


def matmul_ceiling(device_type: str, precision: str) -> float:
    """Peak FLOPs per second of matrix products: from the data sheet, or measured if there is none (0.25 s).

    Args:
        device_type: "cpu" or "cuda".
        precision: "bf16", "fp16", "tf32" or "fp32"; tf32 as torch is set to compute it.
    """
    import torch

    if device_type == "cuda":
        name = torch.cuda.get_device_name()
        peak = next((flops for part, flops in TENSOR_CORE_FLOPS.items() if part in name), None)
        if peak is not None and precision in ("bf16", "fp16"):
            return peak
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    size = MATMUL_SIZE if device_type == "cpu" else 8 * MATMUL_SIZE
    matrix = torch.ones(size, size, device=device_type, dtype=dtype)
    seconds = []
    for _ in range(MATMUL_ROUNDS):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def partition_bytes(corpus_bytes: int) -> int:
    """Bytes per partition of a corpus: a share of it within limits."""
    return max(MIN_PARTITION_BYTES, min(MAX_PARTITION_BYTES, -(-corpus_bytes // PARTITIONS)))


def data_process_bytes(corpus_bytes: int) -> int:
    """Resident memory of a worker process on a partition of a corpus."""
    return DATA_PROCESS_BYTES + MEMORY_PER_PARTITION_BYTE * (partition_bytes(corpus_bytes) - MIN_PARTITION_BYTES)
