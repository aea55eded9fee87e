"""Rounds of making texts: parents are taken until every method has its share of a genre, or none are left.

- `make_texts`: all rounds; `MadePart`: the decided texts of one file and method
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_schemas.tables import KEPT
from infra.workers.partitions import Partition, PartitionMap, PartitionResult
from stages.synthesize.duplicates import MATCHES, Others, Signed, gather, match_file, sign_file, signed_of
from stages.synthesize.generation import Order, Work, drafts_of, generate
from stages.synthesize.parents import Parents
from stages.synthesize.records import DUPLICATE, NOT_MADE, SURPLUS, Decision, child_id
from stages.synthesize.shares import Quota

DECISIONS = pa.schema(
    [
        ("row", pa.int64()), ("verdict", pa.string()), ("similarity", pa.float64()), ("twin", pa.string()),
        ("compared", pa.bool_()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class MadePart:
    """Texts of one file's documents by one method; picklable."""

    path: str
    method: int
    result: PartitionResult
    decisions: pa.Table
    """`DECISIONS`: a row per text that no later round made again."""


class _Draft(NamedTuple):
    seed: int
    method: int
    position: int
    part: int
    """Index of the order among all so far."""
    row: int
    parent: str
    reason: str | None
    may_succeed_later: bool
    number: int
    """Number among the round's texts that passed their own gates; -1 for the others."""


def make_texts(work: Work, parents: Parents, quotas: Sequence[Quota], maps: PartitionMap) -> list[MadePart]:
    """Make texts round by round; counts what was made and accepted in the quotas."""
    near = work.config.gates.near
    corpus: list[PartitionResult] = []
    others = Others(near) if near else None
    rounds = _Rounds(work, parents, {(quota.genre, quota.method): quota for quota in quotas}, others)
    for number in range(work.config.rounds):
        orders = rounds.next_orders()
        if not orders:
            break
        partitions = [Partition(_name(work, order), order) for order in orders]
        results = maps.map(f"generate-{number}", partial(generate, work), partitions)
        if near and not corpus:
            files = [*work.corpus.paths("train/*.parquet"), *work.corpus.paths("held_out/*.parquet")]
            signing = [Partition(_stem(path), path) for path in files]
            corpus = maps.map("signatures", partial(sign_file, work.corpus, near), signing)
        texts, matches = None, {}
        if near:
            digest = _digest(results)
            [gathered] = maps.map(f"gather-{number}", gather, [Partition(digest, results)])
            files_signed = [Partition(f"{result.name}.{digest}", result) for result in corpus]
            matched = maps.map(f"match-{number}", partial(match_file, gathered, near), files_signed)
            texts, matches = signed_of(gathered), _best(matched)
        rounds.decide(orders, results, texts, matches, is_last=number == work.config.rounds - 1)
    return rounds.parts()


class _Rounds:
    """Decisions of all rounds so far."""

    def __init__(
        self, work: Work, parents: Parents, quotas: Mapping[tuple[str, int], Quota], others: Others | None
    ) -> None:
        self._work, self._parents, self._quotas, self._others = work, parents, quotas, others
        self._orders: list[Order] = []
        self._results: list[PartitionResult] = []
        self._decided: dict[int, list[pa.Table]] = defaultdict(list)
        """Index of the order -> `DECISIONS`."""
        self._pending: dict[tuple[int, int], tuple[int, int, Decision]] = {}
        """(method, position) -> index of the order, row and decision, which counts unless the text is made again."""

    def next_orders(self) -> list[Order]:
        """The texts to make in the next round."""
        chosen: dict[int, list[np.ndarray]] = defaultdict(list)
        for (_, method), quota in self._quotas.items():
            chosen[method].append(quota.next_parents())
        return [
            order
            for method, positions in sorted(chosen.items())
            for order in self._parents.orders(method, np.concatenate(positions))
        ]

    def decide(
        self,
        orders: Sequence[Order],
        results: Sequence[PartitionResult],
        texts: Signed | None,
        matches: Mapping[int, tuple[str, float]],
        is_last: bool,
    ) -> None:
        """Decide on the texts of a round, by rank, so that neither files nor workers matter."""
        first = len(self._orders)
        self._orders += orders
        self._results += results
        decided: dict[int, list[tuple[int, Decision]]] = defaultdict(list)
        for draft in sorted(self._drafts(first)):
            self._pending.pop((draft.method, draft.position), None)
            quota = self._quotas[self._genre(draft.position), draft.method]
            decision = self._decision(draft, quota, texts, matches)
            if draft.reason == NOT_MADE and draft.may_succeed_later and not is_last:
                quota.again.append(draft.position)
                self._pending[draft.method, draft.position] = (draft.part, draft.row, decision)
            else:
                quota.made += 1
                quota.accepted += decision.verdict == KEPT
                decided[draft.part].append((draft.row, decision))
        for part, rows in decided.items():
            self._decided[part].append(_table(rows))

    def _genre(self, position: int) -> str:
        return self._parents.names[int(self._parents.genres[position])]

    def _decision(
        self, draft: _Draft, quota: Quota, texts: Signed | None, matches: Mapping[int, tuple[str, float]]
    ) -> Decision:
        if draft.reason is not None:
            return Decision(draft.reason)
        if quota.accepted >= quota.target:
            return Decision(SURPLUS)
        method = self._work.methods[draft.method]
        if self._others is None or texts is None or DUPLICATE in self._work.config.gates.exempt_of(method.kind):
            return Decision(KEPT)
        twin = matches.get(draft.number)
        twin = twin or self._others.twin(texts, draft.number, child_id(draft.parent, method.label))
        return Decision(DUPLICATE, twin[1], twin[0], True) if twin else Decision(KEPT, compared=True)

    def _drafts(self, first: int) -> Iterator[_Draft]:
        number = 0
        columns = ["row", "seed", "parent", "reason", "may_succeed_later"]
        for part in range(first, len(self._orders)):
            order = self._orders[part]
            begin = self._parents.position(order.path, 0)
            for row in drafts_of(self._results[part]).select(columns).to_pylist():
                passed = row["reason"] is None
                yield _Draft(
                    row["seed"], order.method, begin + row["row"], part, row["row"], row["parent"],
                    row["reason"], row["may_succeed_later"], number if passed else -1,
                )  # fmt: skip
                number += passed

    def parts(self) -> list[MadePart]:
        """The decided texts, by order."""
        for part, row, decision in self._pending.values():
            self._decided[part].append(_table([(row, decision)]))
        self._pending.clear()
        return [
            MadePart(
                order.path, order.method, result, pa.concat_tables([DECISIONS.empty_table(), *self._decided[part]])
            )
            for part, (order, result) in enumerate(zip(self._orders, self._results, strict=True))
        ]


def _table(rows: Sequence[tuple[int, Decision]]) -> pa.Table:
    """`DECISIONS` of these rows."""
    return pa.Table.from_pylist([{"row": row, **decision._asdict()} for row, decision in rows], DECISIONS)


def _best(matched: Sequence[PartitionResult]) -> dict[int, tuple[str, float]]:
    """Text -> the nearest document of all files and its similarity."""
    table = pa.concat_tables([MATCHES.empty_table(), *(result.read_table("matches.arrow") for result in matched)])
    best: dict[int, tuple[str, float]] = {}
    for row in table.to_pylist():
        known = best.get(row["number"])
        if known is None or (-row["similarity"], row["id"]) < (-known[1], known[0]):
            best[row["number"]] = (row["id"], row["similarity"])
    return best


def _stem(path: str) -> str:
    return path.removesuffix(".parquet").replace("/", "-")


def _name(work: Work, order: Order) -> str:
    return f"{_stem(order.path)}.{work.methods[order.method].label}.{order.digest[:12]}"


def _digest(results: Sequence[PartitionResult]) -> str:
    """Names what partitions wrote: an engine that fails now and then may give another attempt other texts."""
    hashes = [entry.sha256 for result in results for entry in result.marker.files]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
