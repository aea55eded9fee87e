"""Documents that may have synthetic children: training documents without benchmark items, of a size that engines take.

- `write_parents`: the partition function: genre, eligibility and rank of every training document of a file
- `Parents`: those of all files
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.synthesize.gates.judging import benchmark_items
from stages.synthesize.generation import Order, Work
from stages.synthesize.records import seed_of
from stages.synthesize.shares import Positions, Quota, targets

CONTAMINATED = "contaminated"
"""Tag of dedup for a document with a benchmark item."""
_CHUNK = 1_000


def write_parents(work: Work, path: str, out: PartitionWriter) -> None:
    """Write `parents.arrow`: a row per training document of a file."""
    table = work.corpus.read_table(path).select(["id", "text", "genre", "tags"])
    sizes = pc.binary_length(table.column("text")).to_numpy()
    tagged = np.array([CONTAMINATED in (tags or ()) for tags in table.column("tags").to_pylist()], dtype=np.bool_)
    too_long = sizes > work.config.max_parent_bytes
    with_items = np.zeros(len(table), dtype=np.bool_)
    if work.items is not None:
        for start in range(0, len(table), _CHUNK):
            texts = table.column("text").slice(start, _CHUNK).to_pylist()
            names = benchmark_items(texts, work.items, work.config.gates)
            with_items[start : start + len(names)] = [name is not None for name in names]
    out.count("parents_too_long", int(too_long.sum()))
    out.count("parents_with_benchmark_items", int((~too_long & (tagged | with_items)).sum()))
    ids = table.column("id").to_pylist()
    ranks = {
        f"rank-{number}": pa.array([seed_of(method.ranking, id, work.config.seed) for id in ids], pa.int64())
        for number, method in enumerate(work.methods)
    }
    eligible = ~(too_long | tagged | with_items)
    columns = {"genre": table.column("genre").combine_chunks(), "eligible": pa.array(eligible), **ranks}
    out.write_table("parents.arrow", pa.table(columns))


class Parents(NamedTuple):
    """Training documents of all files; a position is a document's number in the order of the files."""

    paths: list[str]
    first: Positions
    """(files + 1,) int64, position of each file's first document."""
    genres: npt.NDArray[np.int64]
    """(documents,) index into `names`."""
    names: list[str]
    eligible: npt.NDArray[np.bool_]
    ranks: list[Positions]
    """Per method, (documents,) int64."""

    @classmethod
    def read(cls, paths: Sequence[str], results: Sequence[PartitionResult], methods: int) -> "Parents":
        """Read what `write_parents` wrote."""
        tables = [result.read_table("parents.arrow") for result in results]
        first = np.cumsum([0, *map(len, tables)])
        table = pa.concat_tables(tables)
        names = sorted(pc.unique(table.column("genre")).to_pylist())
        genres = pc.index_in(table.column("genre"), pa.array(names, pa.string())).to_numpy().astype(np.int64)
        ranks = [table.column(f"rank-{number}").to_numpy() for number in range(methods)]
        eligible = table.column("eligible").to_numpy().astype(np.bool_)
        return cls(list(paths), first, genres, names, eligible, ranks)

    def quotas(self, work: Work, shares: Sequence[Sequence[object]]) -> list[Quota]:
        """A quota per genre and method, parents by rank.

        Args:
            work: settings and methods.
            shares: per genre of `names`, the share of each method as a fraction.
        """
        quotas = []
        for number, genre in enumerate(self.names):
            of_genre = self.genres == number
            documents, able = int(of_genre.sum()), np.flatnonzero(of_genre & self.eligible)
            wanted = targets(documents, shares[number])  # type: ignore[arg-type]
            for method, target in enumerate(wanted):
                order = able[np.argsort(self.ranks[method][able], kind="stable")]
                quotas.append(Quota(genre, method, documents, target, order))
        return quotas

    def orders(self, method: int, positions: Positions) -> list[Order]:
        """The texts of these documents that a method is to make, by file."""
        positions = np.sort(positions)
        files = np.searchsorted(self.first, positions, side="right") - 1
        orders = []
        for file in np.unique(files).tolist():
            of_file = positions[files == file]
            rows, seeds = of_file - self.first[file], self.ranks[method][of_file]
            orders.append(Order(self.paths[file], method, rows.tolist(), seeds.tolist()))
        return orders

    def position(self, path: str, row: int) -> int:
        """Position of a row of a file."""
        return int(self.first[self.paths.index(path)]) + row
