"""An artifact of 10,000 files in a store on S3, 30 ms away: `python -m benchmarks.many_files [--quick]`.

moto's server in a process of its own, behind a proxy that waits 30 ms before each answer. Answers that it gave before
it gives again without asking moto, whose listings take 0.4 s a page.

- open_seconds: `ArtifactStore.open`, the sizes of all files, the schemas of its tables, as each stage does with inputs
- find_seconds: opening it and looking up one file, as a worker does
- requests: of the first
- windows_per_second: training windows of 2,048 tokens, each a request, as with more shards than the cache holds
"""

import argparse
import json
import os
import statistics
import tempfile
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.manifest import ArtifactRef
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.range_reader import LIMIT_VARIABLE
from stages.common.token_stream import TokenStream, WindowSampler
from tests.infra.store.faulty_s3 import FaultyS3, faulty_s3
from tests.infra.store.s3_server import BUCKET, forget_clients, s3_server
from tests.infra.store.test_many_files import large_artifact
from tests.stages.common.test_token_stream import tokens_artifact

FILES, DELAY_SECONDS = 10_000, 0.03
SHARDS, SHARD_TOKENS, CONTEXT, WINDOWS = 4, 250_000, 2_048, 256
STORE = f"s3://{BUCKET}/store"


def main() -> None:
    """Write the artifacts without a delay, then open them with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of seven")
    rounds = 3 if parser.parse_args().quick else 7
    with tempfile.TemporaryDirectory() as cache, s3_server() as server:
        os.environ |= {**server, "XDG_CACHE_HOME": cache, LIMIT_VARIABLE: "0"}
        documents = large_artifact(STORE, FILES).ref
        tokens = tokens_artifact(
            STORE, *[[(np.arange(SHARD_TOKENS) % (2**15 - first)).tolist()] for first in range(SHARDS)]
        )
        with faulty_s3(server["AWS_ENDPOINT_URL"]) as proxy:
            os.environ["AWS_ENDPOINT_URL"] = proxy.url
            forget_clients()
            proxy.remembered = {}
            _seconds_to_open(documents)
            proxy.delay_seconds = DELAY_SECONDS
            rows = []
            for _ in range(rounds):
                proxy.seen.clear()
                rows.append((_seconds_to_open(documents), len(proxy.seen), _seconds_to_find(documents)))
            windows = _windows_per_second(tokens, proxy)
    results = {
        "open_seconds": statistics.median(row[0] for row in rows),
        "find_seconds": statistics.median(row[2] for row in rows),
        "requests": statistics.median(row[1] for row in rows),
        "windows_per_second": windows,
    }
    table = Table(title=f"{FILES:,} files, {DELAY_SECONDS * 1000:.0f} ms a request, medians of {rounds} rounds")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in results.items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}")
    Console().print(table)
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


def _seconds_to_open(ref: ArtifactRef) -> float:
    start = time.perf_counter()
    artifact = ArtifactStore(STORE).open(ref)
    artifact.check_sizes()
    artifact.check_contract(RAW_DOCUMENTS, "clean")
    return time.perf_counter() - start


def _seconds_to_find(ref: ArtifactRef) -> float:
    start = time.perf_counter()
    ArtifactStore(STORE).open(ref).location("documents/05000.parquet")
    return time.perf_counter() - start


def _windows_per_second(tokens: Artifact, proxy: FaultyS3) -> float:
    proxy.delay_seconds = DELAY_SECONDS
    sampler = WindowSampler(TokenStream(tokens, "train"), CONTEXT, 0)
    start = time.perf_counter()
    sampler.rows(0, WINDOWS)
    return WINDOWS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
