"""FLOPs per second that a device can do at most in matrix products: what a training step is held against."""

import time

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12, "V100": 125e12}
"""Dense, in the tensor cores' 16-bit type, by the vendor's data sheet; the name is part of the device's."""
SIZE = 1024
ROUNDS = 3


def matmul_ceiling(device_type: str, precision: str) -> float:
    """Of the device of this process: by the data sheet, or measured where none is known (a quarter of a second).

    Args:
        device_type: "cpu" or "cuda".
        precision: "bf16", "fp16" or "fp32".
    """
    import torch

    if device_type == "cuda":
        name = torch.cuda.get_device_name()
        peak = next((flops for part, flops in PEAKS.items() if part in name), None)
        if peak is not None and precision != "fp32":
            return peak
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    size = SIZE if device_type == "cpu" else 8 * SIZE
    left = torch.ones(size, size, device=device_type, dtype=dtype)
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        float((left @ left)[0, 0])
        seconds.append(time.perf_counter() - begun)
    return 2.0 * size**3 / min(seconds)
