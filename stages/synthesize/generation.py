"""Texts of one file's documents by one method, batch by batch; an interrupted partition continues at the document.

- `Work`: what all partitions have in common
- `generate`: the partition function
- `rewrite`: one batch, with failed texts tried again
"""

import functools
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from data_schemas.config import canonical_json
from data_schemas.errors import HeadraceError
from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.common.minhash import sign
from stages.synthesize.config import SynthesizeConfig
from stages.synthesize.gates.judging import GateResult, Judge, TextRules, refusals
from stages.synthesize.method import Failure, Method
from stages.synthesize.methods import build_method
from stages.synthesize.records import NOT_MADE, MethodRecord, drafts_schema

COMMIT_SECONDS = 5.0
"""Least time between two commits of a partition's work: those of fast methods would cost more than the texts."""
_CACHED_METHODS = 4


@dataclass(frozen=True)
class Work:
    """Corpus, settings, methods and gates; picklable."""

    corpus: Artifact
    store: str
    config: SynthesizeConfig
    methods: Sequence[MethodRecord]
    rules: Callable[[Mapping[str, Any]], TextRules] | None
    """Makes the rules of clean of their settings."""
    clean_settings: Mapping[str, Any] | None
    items: PartitionResult | None = None
    """Index of the benchmark items."""

    @property
    def permutations(self) -> int:
        """Values per signature."""
        return self.config.gates.near.permutations if self.config.gates.near else 1

    def with_items(self, items: PartitionResult | None) -> "Work":
        """The same with the index of benchmark items."""
        return replace(self, items=items)

    def judge(self, method: int) -> Judge:
        """Gates for the texts of a method."""
        gates = self.config.gates
        exempt = gates.exempt_of(self.methods[method].kind)
        rules = self.rules(self.clean_settings) if self.rules and self.clean_settings is not None else None
        return Judge(gates, exempt, rules if gates.clean_rules else None, self.items)


@dataclass(frozen=True)
class Order:
    """Parents of one file whose text one method is to make; picklable."""

    path: str
    method: int
    """Index among the config's methods."""
    rows: Sequence[int]
    """Rows of the file, ascending."""
    seeds: Sequence[int]

    @property
    def digest(self) -> str:
        """Identifies the order."""
        values = [self.path, self.method, list(self.rows), list(self.seeds)]
        return hashlib.sha256(canonical_json(values).encode()).hexdigest()


@dataclass(frozen=True)
class Made:
    """Output of a method for one document."""

    text: str | None
    reason: str | None = None
    may_succeed_later: bool = False


def generate(work: Work, order: Order, out: PartitionWriter) -> None:
    """Write `drafts/*.arrow` with the texts of an order, in the order of its rows."""
    done = (out.resume(order.digest) or {}).get("done", 0)
    method = _method(canonical_json(work.config.methods[order.method].model_dump(mode="json")), work.store)
    judge = work.judge(order.method)
    parents = work.corpus.read_table(order.path).take(pa.array(order.rows[done:], pa.int64()))
    seeds, committed = order.seeds[done:], time.monotonic()
    tables: list[pa.Table] = []
    for start in range(0, len(parents), work.config.batch_documents):
        batch = parents.slice(start, work.config.batch_documents)
        rows = order.rows[done + start : done + start + len(batch)]
        tables.append(_drafts(work, method, judge, batch.to_pylist(), rows, seeds[start : start + len(batch)]))
        end = start + len(batch)
        if end == len(parents) or time.monotonic() - committed >= COMMIT_SECONDS:
            out.write_table(f"drafts/{done + end:012}.arrow", pa.concat_tables(tables))
            out.commit_piece({"done": done + end})
            tables, committed = [], time.monotonic()


def drafts_of(result: PartitionResult) -> pa.Table:
    """All drafts of a partition, in order."""
    paths = [entry.path for entry in result.marker.files if entry.path.startswith("drafts/")]
    return pa.concat_tables([result.read_table(path) for path in paths])


def _drafts(
    work: Work,
    method: Method,
    judge: Judge,
    parents: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    seeds: Sequence[int],
) -> pa.Table:
    made = rewrite(method, [parent["text"] for parent in parents], seeds, work.config.tries)
    having = [index for index, each in enumerate(made) if each.text is not None]
    texts = [made[index].text or "" for index in having]
    judged: dict[int, list[GateResult]] = {}
    if having:
        judged = dict(zip(having, judge.judge([parents[index] for index in having], texts), strict=True))
    near = work.config.gates.near
    signed = sign(pa.array([each.text or "" for each in made]), work.permutations, near.shingle_words if near else 1)
    reasons, details = zip(*(_verdict(each, judged.get(index, [])) for index, each in enumerate(made)), strict=True)
    columns = [
        pa.array(rows, pa.int64()),
        pa.array(seeds, pa.int64()),
        pa.array([parent["id"] for parent in parents]),
        pa.array([each.text for each in made], pa.string()),
        pa.array(reasons, pa.string()),
        pa.array(details, pa.string()),
        pa.array([each.may_succeed_later for each in made], pa.bool_()),
        pa.array([[result._asdict() for result in judged.get(index, [])] for index in range(len(made))]),
        pa.array(signed.shingles),
        pa.FixedSizeListArray.from_arrays(pa.array(signed.exact.ravel()), 2),
        pa.FixedSizeListArray.from_arrays(pa.array(signed.signatures.ravel()), work.permutations),
    ]
    schema = drafts_schema(work.permutations)
    columns[7] = columns[7].cast(schema.field("gates").type)
    return pa.table(columns, schema=schema)


def _verdict(made: Made, results: Sequence[GateResult]) -> tuple[str | None, str | None]:
    if made.text is None:
        return NOT_MADE, made.reason
    refused = next(refusals(results), None)
    return (refused.gate, refused.detail) if refused else (None, None)


@functools.lru_cache(maxsize=_CACHED_METHODS)
def _method(settings: str, store: str) -> Method:
    """Build a method once per process: its engine may hold weights."""
    from pydantic import TypeAdapter

    from stages.synthesize.methods_config import MethodConfig

    return build_method(TypeAdapter(MethodConfig).validate_json(settings), store)


def rewrite(method: Method, texts: Sequence[str], seeds: Sequence[int], tries: int) -> list[Made]:
    """A method's texts of a batch; failures that may succeed later are tried again.

    A batch that an engine answers with an error, or with another number of texts, is tried again, the last time text by
    text, so that one text that it cannot bear does not cost the others.

    Raises:
        HeadraceError: if the engine is gone; the batches before are committed.
    """
    made = [Made(None, "not tried", True)] * len(texts)
    for attempt in range(tries):
        pending = [index for index, each in enumerate(made) if each.may_succeed_later]
        if not pending:
            break
        alone = attempt > 0 and attempt == tries - 1
        for group in [[index] for index in pending] if alone else [pending]:
            outputs = _outputs(method, [texts[index] for index in group], [seeds[index] for index in group])
            for index, output in zip(group, outputs, strict=True):
                made[index] = _made(texts[index], output, getattr(method, "repeats", False))
    return made


def _outputs(method: Method, texts: Sequence[str], seeds: Sequence[int]) -> Sequence[object]:
    try:
        outputs = method.rewrite(texts, seeds)
    except HeadraceError:
        raise
    except Exception as error:
        return [Failure(f"{type(error).__name__}: {error}"[:300], may_succeed_later=True)] * len(texts)
    if len(outputs) == len(texts):
        return outputs
    reason = f"the engine gave {len(outputs)} texts for {len(texts)}"
    return [Failure(reason, may_succeed_later=True)] * len(texts)


def _made(parent: str, output: object, may_repeat: bool) -> Made:
    if isinstance(output, Failure):
        return Made(None, output.reason, output.may_succeed_later)
    if not isinstance(output, str) or not output.strip():
        return Made(None, "the output is empty", True)
    if output == parent and not may_repeat:
        return Made(None, "nothing was changed")
    try:
        output.encode()
    except UnicodeEncodeError:
        return Made(None, "the output is not Unicode")
    return Made(output)
