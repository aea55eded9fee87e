"""Memory of the loss over a vocabulary of a million: `python -m benchmarks.vocabulary_memory [--quick]`.

Each case runs forward and backward once, in a process of its own. Its extra memory is the peak of the process less
inputs and gradients; the next columns are the size of the gradients and the computed size of the logits of all tokens.
The heads of a million entries: plain of width 64; factorized, from width 256 to 64; adaptive, with bands of widths 256,
64 and 16.

- of_full_logits: memory of the plain head over that of the logits, at the largest number of tokens and entries measured
- vs_cross_entropy, vs_cross_entropy_seconds: memory and time of F.cross_entropy over ours, at a size whose
  logits fit in memory
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn

from modeling.embeddings import AdaptiveHead, head_bands
from modeling.loss.cross_entropy import linear_cross_entropy

MEGABYTE = 1e6
MILLION = 2**20
PLAIN = ((MILLION, 64),)
ADAPTIVE = ((2**15, 256), (2**18 - 2**15, 64), (MILLION - 2**18, 16))


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    tokens: int
    width: int
    """Width of the network; a band of another width is projected."""
    bands: tuple[tuple[int, int], ...]
    """(entries, width) of each band."""
    ours: bool = True
    """Whether the loss is `modeling.loss.cross_entropy`; F.cross_entropy otherwise."""

    @property
    def entries(self) -> int:
        """Entries of the vocabulary."""
        return sum(entries for entries, _ in self.bands)

    @property
    def logits_megabytes(self) -> float:
        """Megabytes of the float32 logits of all tokens."""
        return self.tokens * self.entries * 4 / MEGABYTE


SMALL = ((2**16, 64),)
QUICK = [
    Case("plain", 2_000, 64, SMALL),
    Case("F.cross_entropy", 2_000, 64, SMALL, ours=False),
    Case("factorized", 500, 256, PLAIN),
    Case("adaptive", 500, 256, ADAPTIVE),
    Case("plain", 500, 64, PLAIN),
]
FULL = [
    *QUICK[:2],
    Case("factorized", 30_000, 256, PLAIN),
    Case("adaptive", 30_000, 256, ADAPTIVE),
    Case("plain", 30_000, 64, PLAIN),
]


def main() -> None:
    """Measure each case in a fresh process; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 tokens instead of 30,000 for a million entries")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(_measure(Case(**json.loads(arguments.case)))))
        return
    cases = QUICK if arguments.quick else FULL
    measurements = [_measure_in_subprocess(case) for case in cases]
    _print_table(cases, measurements)
    ours, torch_loss, largest = measurements[0], measurements[1], measurements[-1]
    ratios = {
        "tokens": cases[-1].tokens,
        "entries": cases[-1].entries,
        "memory_megabytes": round(largest["megabytes"], 1),
        "full_logits_megabytes": round(cases[-1].logits_megabytes),
        "of_full_logits": float(f"{largest['megabytes'] / cases[-1].logits_megabytes:.3g}"),
        "vs_cross_entropy": round(torch_loss["megabytes"] / ours["megabytes"], 2),
        "vs_cross_entropy_seconds": round(torch_loss["seconds"] / ours["seconds"], 2),
    }
    print(json.dumps(ratios))


def _measure_in_subprocess(case: Case) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.vocabulary_memory", "--case", json.dumps(asdict(case))]
    completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measurements: dict[str, float] = json.loads(completed.stdout.splitlines()[-1])
    return measurements


def _measure(case: Case) -> dict[str, float]:
    """Extra megabytes, megabytes of gradients, and seconds of one forward and backward."""
    torch.manual_seed(0)
    # Warm-up: libraries and buffers of the first call are not counted.
    _forward_and_backward(case, *_inputs(case.width, [(50, width) for _, width in case.bands], 10))
    hidden, head, targets = _inputs(case.width, case.bands, case.tokens)
    before, gradients = psutil.Process().memory_info().rss, _bytes(hidden, *head.parameters())
    start = time.perf_counter()
    _forward_and_backward(case, hidden, head, targets)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "megabytes": (peak - before - gradients) / MEGABYTE,
        "gradient_megabytes": gradients / MEGABYTE,
        "seconds": seconds,
    }


def _inputs(width: int, bands: Any, tokens: int) -> tuple[Tensor, nn.Module, Tensor]:
    hidden = torch.randn(tokens, width).requires_grad_()
    return hidden, AdaptiveHead(bands, width), torch.randint(sum(entries for entries, _ in bands), (tokens,))


def _forward_and_backward(case: Case, hidden: Tensor, head: nn.Module, targets: Tensor) -> None:
    loss = (
        linear_cross_entropy(head_bands(head, hidden), targets).total
        if case.ours
        else F.cross_entropy(head(hidden), targets)
    )
    loss.backward()  # type: ignore[no-untyped-call]


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _print_table(cases: list[Case], measurements: list[dict[str, float]]) -> None:
    headings = ["tokens", "entries", "extra MB", "gradient MB", "all logits MB", "seconds"]
    table = Table(*(Column(heading, no_wrap=heading in ("head", "entries")) for heading in ["head", *headings]))
    for case, measurement in zip(cases, measurements, strict=True):
        sizes = (measurement["megabytes"], measurement["gradient_megabytes"], case.logits_megabytes)
        table.add_row(
            case.name,
            f"{case.tokens:,}",
            f"{case.entries:,}",
            *(f"{megabytes:,.0f}" for megabytes in sizes),
            f"{measurement['seconds']:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
