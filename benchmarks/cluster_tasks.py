"""Cost of the driver on a Ray cluster of 64 pretended CPUs, with partitions that sleep.

Run as `python -m benchmarks.cluster_tasks [--quick]`. Prints how many partitions ran at once and the time of all beside
that of a cluster without a driver; the last line is a JSON object:

- `running_at_once`: the most partitions that ran at the same time, as a share of the CPUs
- `ideal_over_wall`: (partitions x sleep / CPUs) over the seconds that the map took once all processes had started
- `driver_cpu_ms`: CPU time of the driver per partition, which bounds the partitions per second of any cluster
"""

import argparse
import json
import os
import tempfile
import time
from functools import partial

import numpy as np
import pyarrow as pa

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from infra.workers.ray_partitions import TaskNeeds
from infra.workers.ray_session import close_ray

CPUS = 64
QUICK_CPUS = 16


def sleep_partition(seconds: float, payload: int, out: PartitionWriter) -> None:
    """Sleep, and write when that began and ended."""
    begun = time.time()
    time.sleep(seconds)
    out.write_table("times.arrow", pa.table({"begun": [begun], "ended": [time.time()]}))


def most_at_once(times: np.ndarray) -> int:
    """The largest number of intervals (rows of begin, end) that overlap."""
    events = sorted([(begun, 1) for begun, _ in times] + [(ended, -1) for _, ended in times])
    return int(np.cumsum([change for _, change in events]).max())


def measure(url: str, attempt: str, count: int, seconds: float) -> tuple[float, float, np.ndarray]:
    """Seconds of a map, CPU seconds of this process in it, and (partitions, 2) begin and end of each partition."""
    folder = ArtifactStore(url).key_folder("clean", "b" * 64)
    maps = PartitionMap(folder, "clean", RAW_DOCUMENTS, attempt, "ray", fresh=True, needs=TaskNeeds())
    started, cpu_started = time.perf_counter(), time.process_time()
    parts = [Partition(f"{number:05d}", number) for number in range(count)]
    results = maps.map("sleep", partial(sleep_partition, seconds), parts)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    rows = [result.read_table("times.arrow") for result in results]
    return wall, cpu, np.array([[row["begun"][0].as_py(), row["ended"][0].as_py()] for row in rows])


def main() -> None:
    """Start Ray with pretended CPUs and run partitions on it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="16 CPUs")
    cpus, seconds, rounds = (QUICK_CPUS, 2.0, 10) if parser.parse_args().quick else (CPUS, 8.0, 5)
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    with tempfile.TemporaryDirectory() as folder:
        measure(folder, "warm-up", 2 * cpus, 5.0)
        wall, cpu, times = measure(folder, "measured", rounds * cpus, seconds)
    close_ray()
    share, ratio, own = most_at_once(times) / cpus, rounds * seconds / wall, 1_000 * cpu / (rounds * cpus)
    print(
        f"{cpus} CPUs, {rounds * cpus} partitions of {seconds:g} s: {share:.0%} of the CPUs busy at once, {wall:.1f} s "
        f"for {rounds * seconds:g}, {own:.1f} ms of the driver's CPU time per partition"
    )
    figures = {"running_at_once": share, "ideal_over_wall": ratio, "driver_cpu_ms": own}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
