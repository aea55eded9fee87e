"""Accelerators with the figures that plans need, each with its source.

- `Accelerator`: one device
- `ACCELERATORS`: the table; `find_accelerator`: by any common spelling of a name

Rates are dense, without structured sparsity. `sustained_flops` is what large products reach for seconds under the power
limit, not the data sheet's peak; fitted constants of `infra.planner.step_time` are shares of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

GIB = 2**30
TERA, GIGA = 1e12, 1e9
MAX_NAME = 200
"""Characters of a text in which a device is looked for."""
LEAST_MEMORY, MOST_MEMORY = 0.3, 0.85
"""Share of the table's memory that a text gives of the same device with less of it."""


@dataclass(frozen=True)
class Accelerator:
    """One device, with eight or fewer of which a node is built."""

    name: str
    pattern: str
    """Regular expression of its spellings, in lower case without spaces, dashes and underscores."""
    memory_bytes: float
    peak_flops: float
    """Data sheet, 16-bit products."""
    sustained_flops: float
    """16-bit products of large matrices, measured."""
    attention_flops: float
    """Fused attention, forward and backward, measured by the kernel's authors; `sustained_flops` if nobody did."""
    memory_bandwidth: float
    """Bytes per second of the device's own memory."""
    link_bandwidth: float
    """Bytes per second and direction to the other devices of the node."""
    network_bandwidth: float
    """Bytes per second and direction to other nodes, per device, in a usual cluster."""
    node_devices: int
    watts: float
    price_per_hour: float
    """US dollars; clouds differ by more than a factor of two."""
    mtbf_hours: float
    """Mean device-hours between failures that end a job."""
    source: str
    fp8_flops: float = 0.0
    """Sustained 8-bit products; 0 if the device has none."""


_FA2 = "attention: FlashAttention-2, 2307.08691, figures 5 to 7, heads of 128, forward and backward"
_SEMI = "sustained: SemiAnalysis, MI300X vs H100 vs H200, 2024-12"
_MAMF = "sustained: S. Bekman, ml-engineering, table of maximum achievable matmul FLOPS"
_LLAMA = "failures: Llama 3, 2407.21783, table 5: 419 in 54 days of 16,384 H100"
_LLAMA_HOURS = 16_384 * 54 * 24 / 419
_BLOOM = "failures: BLOOM, 2211.05100: one to two GPUs a week of 384"
_BLOOM_HOURS = 384 * 168 / 1.5

ACCELERATORS = (
    # Four lines each: name, spellings, memory; peak, sustained, attention, memory bandwidth; links in a node, network,
    # devices of a node, watts, dollars per hour, hours between failures; source, 8-bit products.
    Accelerator(
        "A100-PCIe", r"a100\w{0,12}pcie", 80 * GIB,
        312 * TERA, 252.9 * TERA, 204 * TERA, 1.935 * TERA,
        25 * GIGA, 12.5 * GIGA, 8, 300, 1.4, _BLOOM_HOURS,
        f"NVIDIA A100 PCIe data sheet; {_MAMF}; {_FA2}; {_BLOOM}",
    ),
    Accelerator(
        "A800", r"a800", 80 * GIB,
        312 * TERA, 267.9 * TERA, 204 * TERA, 2.039 * TERA,
        200 * GIGA, 25 * GIGA, 8, 400, 1.5, _BLOOM_HOURS,
        f"as A100, NVLink 400 GB/s; {_MAMF}; {_FA2}; {_BLOOM}",
    ),
    Accelerator(
        "A100-40GB", r"a100(sxm\d?|pcie)?40g|dgxa10040", 40 * GIB,
        312 * TERA, 267.9 * TERA, 204 * TERA, 1.555 * TERA,
        300 * GIGA, 25 * GIGA, 8, 400, 1.3, _BLOOM_HOURS,
        f"NVIDIA A100 data sheet; {_MAMF}; {_FA2}; {_BLOOM}",
    ),
    Accelerator(
        "A100-80GB", r"a100|ampere", 80 * GIB,
        312 * TERA, 267.9 * TERA, 204 * TERA, 2.039 * TERA,
        300 * GIGA, 25 * GIGA, 8, 400, 1.8, _BLOOM_HOURS,
        f"NVIDIA A100 data sheet; {_MAMF}; {_FA2}; {_BLOOM}",
    ),
    Accelerator(
        "H100-PCIe", r"h100\w{0,12}pcie", 80 * GIB,
        756 * TERA, 550 * TERA, 280 * TERA, 2.0 * TERA,
        25 * GIGA, 12.5 * GIGA, 8, 350, 2.0, _LLAMA_HOURS,
        f"NVIDIA H100 PCIe data sheet; sustained and attention: as much of the peak as SXM's; {_LLAMA}", 980 * TERA,
    ),
    Accelerator(
        "H20", r"h20(?!0)", 96 * GIB,
        148 * TERA, 135 * TERA, 120 * TERA, 4.0 * TERA,
        450 * GIGA, 50 * GIGA, 8, 400, 1.5, _LLAMA_HOURS,
        f"NVIDIA H20 data sheet; sustained and attention: guesses; {_LLAMA}", 270 * TERA,
    ),
    Accelerator(
        "H800", r"h800", 80 * GIB,
        989.4 * TERA, 720 * TERA, 335 * TERA, 3.35 * TERA,
        200 * GIGA, 50 * GIGA, 8, 700, 2.0, _LLAMA_HOURS,
        f"as H100, NVLink 400 GB/s (DeepSeek-V3, 2412.19437); {_SEMI}; {_LLAMA}", 1_280 * TERA,
    ),
    Accelerator(
        "H100-96GB-HBM2e", r"h10096g", 95 * GIB,
        989.4 * TERA, 720 * TERA, 335 * TERA, 2.4 * TERA,
        450 * GIGA, 50 * GIGA, 8, 700, 2.5, _LLAMA_HOURS,
        f"as H100; HBM2e 2.4 TB/s (Meta, Grand Teton nodes, recalled); {_SEMI}; {_FA2}; {_LLAMA}", 1_280 * TERA,
    ),
    Accelerator(
        "H100", r"h100", 80 * GIB,
        989.4 * TERA, 720 * TERA, 335 * TERA, 3.35 * TERA,
        450 * GIGA, 50 * GIGA, 8, 700, 2.5, _LLAMA_HOURS,
        f"NVIDIA H100 SXM data sheet; {_SEMI}; {_FA2}; {_LLAMA}", 1_280 * TERA,
    ),
    Accelerator(
        "H200", r"g?h200", 141e9,
        989.4 * TERA, 720 * TERA, 335 * TERA, 4.8 * TERA,
        450 * GIGA, 50 * GIGA, 8, 700, 3.0, _LLAMA_HOURS,
        f"NVIDIA H200 SXM data sheet; {_SEMI}; attention as H100; {_LLAMA}", 1_280 * TERA,
    ),
    Accelerator(
        "GB300", r"g?b300", 288e9,
        2_500 * TERA, 1_600 * TERA, 1_600 * TERA, 8 * TERA,
        900 * GIGA, 100 * GIGA, 72, 1_400, 6.0, _LLAMA_HOURS,
        f"NVIDIA GB300 NVL72 data sheet; as B200; {_LLAMA}", 3_200 * TERA,
    ),
    Accelerator(
        "GB200", r"gb200", 186e9,
        2_500 * TERA, 1_600 * TERA, 1_600 * TERA, 8 * TERA,
        900 * GIGA, 50 * GIGA, 72, 1_200, 5.0, _LLAMA_HOURS,
        f"NVIDIA GB200 NVL72 data sheet; as B200; {_LLAMA}", 3_200 * TERA,
    ),
    Accelerator(
        "B200", r"b200", 180e9,
        2_250 * TERA, 1_560 * TERA, 1_560 * TERA, 8 * TERA,
        900 * GIGA, 50 * GIGA, 8, 1_000, 4.5, _LLAMA_HOURS,
        f"NVIDIA HGX B200 data sheet; sustained: 1,448 to 1,672 TFLOP/s by shape, 2604.23466; attention: its products; "
        f"{_LLAMA}", 3_100 * TERA,
    ),
    Accelerator(
        "V100", r"v100", 32 * GIB,
        125 * TERA, 90 * TERA, 90 * TERA, 0.9 * TERA,
        150 * GIGA, 12.5 * GIGA, 8, 300, 0.6, _BLOOM_HOURS,
        "NVIDIA V100 SXM2 data sheet; sustained: 0.72 of the peak, a guess; failures as A100",
    ),
    Accelerator(
        "MI250X", r"mi250x?", 128 * GIB,
        383 * TERA, 294 * TERA, 180 * TERA, 3.276 * TERA,
        100 * GIGA, 25 * GIGA, 4, 560, 1.5, _BLOOM_HOURS,
        f"AMD MI250X data sheet, both dies; {_MAMF}; attention: a guess; failures as A100",
    ),
    Accelerator(
        "MI300X", r"mi300x?", 192 * GIB,
        1_307 * TERA, 620 * TERA, 300 * TERA, 5.3 * TERA,
        448 * GIGA, 50 * GIGA, 8, 750, 2.5, _LLAMA_HOURS,
        f"AMD MI300X data sheet; {_SEMI}; attention: a guess; failures as H100", 990 * TERA,
    ),
    Accelerator(
        "MI325X", r"mi325x?", 256e9,
        1_307 * TERA, 640 * TERA, 300 * TERA, 6.0 * TERA,
        448 * GIGA, 50 * GIGA, 8, 1_000, 3.0, _LLAMA_HOURS,
        "AMD MI325X data sheet; sustained and attention: as MI300X; failures as H100", 1_000 * TERA,
    ),
    Accelerator(
        "Gaudi2", r"gaudi-?2", 96 * GIB,
        432 * TERA, 350 * TERA, 200 * TERA, 2.45 * TERA,
        262 * GIGA, 37 * GIGA, 8, 600, 1.3, _BLOOM_HOURS,
        "Intel Gaudi 2 white paper; sustained and attention: guesses; failures as A100",
    ),
    Accelerator(
        "Trainium2", r"trainium2|trn2", 96 * GIB,
        667 * TERA, 480 * TERA, 300 * TERA, 2.9 * TERA,
        512 * GIGA, 25 * GIGA, 16, 500, 1.5, _LLAMA_HOURS,
        "AWS Trn2; sustained, attention and power: guesses; failures as H100",
    ),
    Accelerator(
        "TPU-v6e", r"tpuv?6e?|v6e|trillium", 32e9,
        918 * TERA, 740 * TERA, 500 * TERA, 1.6 * TERA,
        200 * GIGA, 25 * GIGA, 256, 300, 2.7, _LLAMA_HOURS,
        "Google Cloud, TPU v6e; sustained, attention and power: guesses; failures as H100",
    ),
    Accelerator(
        "TPU-v5e", r"(tpu)?v?5e|(tpu)?v?5lite", 16 * GIB,
        197 * TERA, 167 * TERA, 120 * TERA, 0.819 * TERA,
        100 * GIGA, 25 * GIGA, 256, 200, 1.2, _LLAMA_HOURS,
        "Google Cloud, TPU v5e; sustained, attention and power: guesses; failures as H100",
    ),
    Accelerator(
        "TPU-v5p", r"tpuv?5p|v5p", 95 * GIB,
        459 * TERA, 390 * TERA, 300 * TERA, 2.765 * TERA,
        300 * GIGA, 100 * GIGA, 256, 450, 4.2, _LLAMA_HOURS,
        "Google Cloud, TPU v5p; sustained: 0.85 of the peak, a guess; failures as H100",
    ),
    Accelerator(
        "TPU-v4", r"tpuv?4|v4", 32 * GIB,
        275 * TERA, 234 * TERA, 180 * TERA, 1.2 * TERA,
        150 * GIGA, 50 * GIGA, 256, 192, 3.2, _LLAMA_HOURS,
        "TPU v4, 2304.01433; sustained: 0.85 of the peak, a guess; failures as H100",
    ),
    Accelerator(
        "TPU-v3", r"tpuv?3|v3", 32 * GIB,
        123 * TERA, 104 * TERA, 80 * TERA, 0.9 * TERA,
        70 * GIGA, 35 * GIGA, 256, 225, 2.0, _BLOOM_HOURS,
        "Google Cloud, TPU v3; sustained: 0.85 of the peak, a guess; failures as A100",
    ),
    Accelerator(
        "L40S", r"l40s?", 48 * GIB,
        362 * TERA, 230 * TERA, 150 * TERA, 0.864 * TERA,
        28 * GIGA, 12.5 * GIGA, 8, 350, 1.0, _BLOOM_HOURS,
        "NVIDIA L40S data sheet; sustained and attention: guesses; failures as A100", 400 * TERA,
    ),
    Accelerator(
        "L4", r"l4(?!0|s)", 24 * GIB,
        121 * TERA, 60 * TERA, 50 * TERA, 0.3 * TERA,
        12 * GIGA, 3 * GIGA, 8, 72, 0.5, _BLOOM_HOURS,
        "NVIDIA L4 data sheet; sustained (72 W) and attention: guesses; failures as A100", 120 * TERA,
    ),
    Accelerator(
        "RTX-3090", r"(rtx)?3090", 24 * GIB,
        71 * TERA, 65 * TERA, 50 * TERA, 0.936 * TERA,
        12 * GIGA, 3 * GIGA, 8, 350, 0.25, _BLOOM_HOURS,
        "NVIDIA Ampere GA102 whitepaper; sustained and attention: guesses; failures as A100",
    ),
    Accelerator(
        "RTX-4090", r"(rtx)?4090", 24 * GIB,
        165 * TERA, 150 * TERA, 120 * TERA, 1.008 * TERA,
        12 * GIGA, 3 * GIGA, 8, 450, 0.4, _BLOOM_HOURS,
        "NVIDIA Ada whitepaper; sustained and attention: guesses; failures as A100", 280 * TERA,
    ),
    Accelerator(
        "CPU-96", r"cpu.*|epyc.*|xeon.*", 768 * GIB,
        20 * TERA, 11.5 * TERA, 11.5 * TERA, 0.46 * TERA,
        100 * GIGA, 12.5 * GIGA, 1, 600, 4.0, 5 * 8_760,
        "96 Zen 4 cores: 425 GFLOP/s of bf16 products on two cores at the peak, 120 GFLOP/s a core in training "
        "(infra/hardware.py), 12 channels of DDR5-4800; failures: a guess",
    ),
)  # fmt: skip


def find_accelerator(text: str) -> Accelerator | None:
    """The accelerator that a text names, such as "A100-SXM4 80GB" or "8x h100_80gb"; None if it names none.

    A power limit in the text, such as "500 W", lowers the rate of products by its cube root: dynamic power grows with
    the third power of the clock.
    """
    leading = re.sub(r"^\s*(\d+)\s*gi?b\b(.*)", r"\2 \1gb", text[:MAX_NAME].lower())  # 40GB A100
    plain = re.sub(r"nvidia|tesla|amd|intel|instinct|google|cloud|geforce|dgx|hgx", " ", leading)
    words = [word for word in (re.sub(r"^\d+[x×*]", "", part) for part in re.split(r"[\s_\-/(),;:]+", plain)) if word]
    for accelerator in ACCELERATORS:
        if any(_names(accelerator, words[number:], number) for number in range(len(words))):
            return _limited(_with_memory(accelerator, text), text)
    return None


def _names(accelerator: Accelerator, words: Sequence[str], number: int) -> bool:
    """Whether the accelerator's name begins with these words, the first of which is the text's word of that number."""
    if number and re.match(r"v\d(?!00)", words[0]):
        return False  # a version, such as that of a cloud's machine; TPUs are called v4 only at the beginning
    match = re.match(accelerator.pattern, "".join(words))
    # Other digits than those of the memory make it another name: A1000 is no A100.
    return match is not None and not re.match(r"\d+(?![\dg])", words[0][match.end() :])


def accelerator_names() -> list[str]:
    """Names of the table, for error messages."""
    return [accelerator.name for accelerator in ACCELERATORS]


def _with_memory(accelerator: Accelerator, text: str) -> Accelerator:
    """The accelerator with the memory of the text, if it is a smaller version of that of the table."""
    stated = re.search(r"(?<![\d.])(\d{2,3})\s*gi?b?(?![a-z/])", text, re.IGNORECASE)
    memory = int(stated[1]) * GIB if stated else 0
    is_version = LEAST_MEMORY < memory / accelerator.memory_bytes < MOST_MEMORY and "TPU" not in accelerator.name
    return replace(accelerator, memory_bytes=memory) if is_version else accelerator


def _limited(accelerator: Accelerator, text: str) -> Accelerator:
    limit = re.search(r"(?<![\d.])(\d{2,4})\s*(?:w|watts?)\b", text, re.IGNORECASE)
    if limit is None or not 0.3 * accelerator.watts < int(limit[1]) < accelerator.watts:
        return accelerator
    share = (int(limit[1]) / accelerator.watts) ** (1 / 3)
    return replace(
        accelerator,
        watts=float(limit[1]),
        sustained_flops=accelerator.sustained_flops * share,
        fp8_flops=accelerator.fp8_flops * share,
    )
