"""Memory that the driver of synthesize needs per text, from the first to the last decision of a round.

`python -m benchmarks.synthesize_memory [--quick]`: bytes that Python and NumPy allocate, by tracemalloc.
"""

import argparse
import json
import tracemalloc
from typing import Any

import numpy as np

from stages.synthesize import rounds
from stages.synthesize.config import SynthesizeConfig
from tests.stages.synthesize.fakes import corpus_of, document, run_stage

WORDS = 30


def main() -> None:
    """Print a table, and the figures as one JSON object."""
    parser = argparse.ArgumentParser(description="Memory of synthesize's driver per text.")
    parser.add_argument("--quick", action="store_true", help="fewer texts")
    sizes = (500, 1_000) if parser.parse_args().quick else (2_000, 8_000)
    measured(100)  # compiles
    figures: dict[str, float] = {}
    print(f"{'texts':>8}  {'held':>8}  {'peak':>8}  bytes per text")
    for texts in sizes:
        held, peak = measured(texts)
        print(f"{texts:>8,}  {held:>8,.0f}  {peak:>8,.0f}")
        figures |= {f"held_bytes_{texts}": held, f"peak_bytes_{texts}": peak}
    print(json.dumps(figures))


def measured(texts: int) -> tuple[float, float]:
    """Bytes per text after and at the peak of the decisions of one round."""
    random = np.random.default_rng(texts)
    words = random.integers(0, 10**6, (texts, WORDS))
    rows = [document(f"files/part-00000.jsonl.gz#{i}", f"w{' w'.join(map(str, row))}.") for i, row in enumerate(words)]
    gates = {"clean_rules": False, "max_nearness": None}
    config = SynthesizeConfig.model_validate({"methods": [{"kind": "swap", "share": 1}], "gates": gates, "rounds": 1})
    real, marks = rounds._Rounds.decide, list[int]()

    def traced(self: Any, *arguments: Any, **options: Any) -> None:
        tracemalloc.start()
        real(self, *arguments, **options)
        self.parts()
        marks.extend(tracemalloc.get_traced_memory())
        tracemalloc.stop()

    rounds._Rounds.decide = traced  # type: ignore[method-assign]
    try:
        run_stage(corpus_of(rows, files=1), config)
    finally:
        rounds._Rounds.decide = real  # type: ignore[method-assign]
    held, peak = marks
    return held / texts, peak / texts


if __name__ == "__main__":
    main()
