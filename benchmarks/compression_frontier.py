"""Size, compute and quality of a compressed model: `python -m benchmarks.compression_frontier`.

Options: `[--quick] [--config FILE] [--run RUN]`. Runs the recipe of `configs/compact-95.yaml` from the text on (over an
hour on two cores; artifacts in the store are reused), or reads an existing run. `--quick` trains a smaller teacher for
a minute, far from converged: it shows that the recipe works, not how good it is. Sizes, compute and bits per byte are
those of the compress stage; decoding is measured again here, the uncompressed and the compressed network in
alternation.

- bytes_ratio, generation_ratio: bytes on disk and peak bytes in decoding by the same decoder, compressed over
  uncompressed
- flops_ratio (MACs), bit_operations_ratio: compute per token, compressed over uncompressed
- bpb_loss_percent, bpb_loss_low, bpb_loss_high: increase of bits per byte, and its 95 % interval
- decode_speedup: tokens per second, compressed over uncompressed
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.commands.lineage import find_artifact
from flows.report.compression_frontier import generation_key
from flows.store_location import store_url
from infra.store.artifacts import Artifact
from modeling.decoding.generation import decode_speed
from modeling.export.model_files import model_from_files
from modeling.transformer import Transformer

HEADRACE = str(Path(sys.executable).with_name("headrace"))
CONFIG = "configs/compact-95.yaml"
QUICK = (
    "execution.engine=inline",
    "ingest.max_source_bytes=6000000",
    "tokenize.vocabulary_size=512",
    "pretrain.model={layers: 4, width: 96, heads: 3, context_length: 128}",
    "pretrain.workers=0",
    "pretrain.tokens=250000",
    "compress.measured_bytes=30000",
    "compress.passes.0.layers=2",
    "compress.passes.0.width=64",
    "compress.passes.0.recovery.tokens=150000",
    "compress.passes.1.recovery.tokens=50000",
)
ROUNDS = 7


def main() -> None:
    """Run the recipe, measure decoding; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small teacher, trained for a minute")
    parser.add_argument("--config", default=CONFIG, help="run config with the recipe")
    parser.add_argument("--run", help="id of a run that compressed a model, read instead of training one")
    parser.add_argument("--store", help="URL of the artifact store")
    arguments = parser.parse_args()
    url = store_url(arguments.store)
    run = arguments.run or _run(arguments, url)
    compressed = find_artifact(url, f"{run}:compress")
    rows = compressed.manifest.metrics["passes"]
    _print_passes(rows)
    print(json.dumps(_ratios(rows[0], rows[-1], _decode_speedup(find_artifact(url, f"{run}:pretrain"), compressed))))


def _run(arguments: argparse.Namespace, url: str) -> str:
    overrides = [part for override in QUICK for part in ("--set", override)] if arguments.quick else []
    command = [HEADRACE, "run", arguments.config, "--until", "compress", "--store", url, "--json", *overrides]
    completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return str(json.loads(completed.stdout.splitlines()[-1])["run_id"])


def _decode_speedup(*artifacts: Artifact) -> float:
    before, after = (_network(artifact) for artifact in artifacts)
    pairs = [(decode_speed(before), decode_speed(after)) for _ in range(ROUNDS)]
    return statistics.median(compressed / plain for plain, compressed in pairs)


def _network(artifact: Artifact) -> Transformer:
    return model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))


def _ratios(before: dict[str, Any], after: dict[str, Any], decode_speedup: float) -> dict[str, float]:
    change, memory = after["bits_change"], generation_key(after, before)
    return {
        "bytes_ratio": round(after["bytes"] / before["bytes"], 4),
        "generation_ratio": round(after[memory] / before[memory], 4),
        "flops_ratio": round(after["macs_per_token"] / before["macs_per_token"], 4),
        "bit_operations_ratio": round(after["bit_operations_per_token"] / before["bit_operations_per_token"], 4),
        "bpb_loss_percent": round(100 * change["value"], 2),
        "bpb_loss_low": round(100 * change["low"], 2),
        "bpb_loss_high": round(100 * change["high"], 2),
        "decode_speedup": round(decode_speedup, 2),
    }


def _print_passes(rows: list[dict[str, Any]]) -> None:
    table = Table("pass", "bytes", "generation", "MACs", "bit operations", "bits per byte", "decode tokens/s")
    for row in rows:
        table.add_row(
            row["name"], f"{row['bytes']:,}", f"{row[generation_key(row, rows[0])]:,}", f"{row['macs_per_token']:,.0f}",
            f"{row['bit_operations_per_token']:,.0f}", f"{row['bits_per_byte']:.4f}",
            f"{row['decode_tokens_per_second']:,.0f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
