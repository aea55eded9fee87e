"""How likely continuations are after their prefixes, with what several of them share computed once.

- `score_continuations`: log-likelihood of each continuation, and whether greedy decoding would give it
- `pieces`: a continuation longer than the context in several
- `caches_exactly`: whether a network can read a beginning once for several

Shared is, without a change of any answer: a whole request that is asked again; a prefix with several continuations
(multiple choice), which is read once into the key-value cache; and the beginning that all prefixes of a batch have in
common (the examples of a few-shot prompt). lm-evaluation-harness's backend for Hugging Face models reads every request
from its first token, save continuations of one token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from modeling.attention.key_value_cache import DecoderCache
from modeling.attention.multi_head import Attention
from modeling.loss.logit_tiles import TILING, softmax_ready
from modeling.transformer import Transformer

SHARED_BEGINNING = 48
"""Tokens that a batch's prefixes must have in common to be worth a step of their own."""

Tokens = tuple[int, ...]


class Request(NamedTuple):
    """What is asked: how likely `continuation` is after `prefix`; neither is empty."""

    prefix: Tokens
    continuation: Tokens


class Answer(NamedTuple):
    """Natural-log likelihood of all of a continuation, and whether each of its tokens was the likeliest."""

    log_likelihood: float
    greedy: bool


@dataclass
class _Trunk:
    """A row of tokens, the continuations that can be judged on it, and those that branch off at its end."""

    tokens: Tokens
    known: int
    """Tokens of the prefix; what follows is of the longest continuation on the row."""
    on_row: list[Tokens]
    branches: list[Tokens] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return max(1, len(self.branches))

    @property
    def length(self) -> int:
        return len(self.tokens) + max(map(len, self.branches), default=0)


class _Judged(NamedTuple):
    """The hidden states before each token of a continuation."""

    trunk: _Trunk
    continuation: Tokens
    hidden: Tensor
    """(tokens, width)."""


def pieces(request: Request, context: int) -> list[Request]:
    """The request, or several whose answers together are its own, where its continuation is longer than the context.

    Each piece is half a context long, so that it is read behind at least another half; as in `bits_per_byte`.
    """
    prefix, continuation = request
    if len(continuation) <= context:
        return [request]
    step = max(context // 2, 1)
    starts = range(0, len(continuation), step)
    return [Request(prefix + continuation[:start], continuation[start : start + step]) for start in starts]


def score_continuations(
    model: Transformer, requests: Sequence[Request], batch_tokens: int
) -> Iterator[list[tuple[int, Answer]]]:
    """Answers batch by batch, the longest first, so that the caller can keep what it has.

    A prefix that is too long for the context loses its beginning, as in lm-evaluation-harness.

    Args:
        model: in `eval` mode.
        requests: in any order; equal ones cost nothing more.
        batch_tokens: most tokens of a batch, padding included; one request may have more.

    Yields:
        (index of the request, its answer) of every request that the batch answers.

    """
    may_cache = _CacheRule(model)
    asked: dict[Tokens, dict[Tokens, list[int]]] = {}
    for number, request in enumerate(requests):
        prefix, continuation = _fitted(request, model.config.context_length)
        asked.setdefault(prefix, {}).setdefault(continuation, []).append(number)
    trunks = [trunk for prefix, ends in asked.items() for trunk in _trunks(prefix, list(ends), may_cache)]
    for batch in (batch for family in _families(trunks) for batch in _batches(family, batch_tokens)):
        common = _common_beginning(batch) if all(may_cache(trunk.tokens) for trunk in batch) else 0
        yield [
            (number, answer)
            for one, answer in _answers(model, batch, common)
            for number in asked[one.trunk.tokens[: one.trunk.known]][one.continuation]
        ]


def _fitted(request: Request, context: int) -> Request:
    prefix, continuation = map(tuple, request)
    assert prefix and continuation, "a continuation of at least one token stands behind a prefix of at least one"
    assert len(continuation) <= context, "`pieces` cuts longer ones"
    # The last token is predicted, not read.
    return Request(prefix[-(context + 1 - len(continuation)) :], continuation)


def caches_exactly(model: Transformer) -> bool:
    """Whether what the cache holds gives what reading it again gives."""
    # What stands in for attention may keep less than it reads: integers, the newest hashes.
    return all(type(layer.attention) is Attention for layer in model.layers.children())


class _CacheRule:
    """Says whether a prefix read into the cache gives what reading it again gives."""

    def __init__(self, model: Transformer) -> None:
        config = model.config
        self._exact = caches_exactly(model)
        self._divider = config.end_of_text if config.separate_documents else None

    def __call__(self, tokens: Tokens) -> bool:
        """True for tokens that attention takes for one document; a cache knows no borders inside its rows."""
        return self._exact and self._divider not in tokens[1:]


def _trunks(prefix: Tokens, continuations: list[Tokens], may_cache: _CacheRule) -> list[_Trunk]:
    short: list[Tokens] = [one for one in continuations if len(one) == 1]
    long: list[Tokens] = [one for one in continuations if len(one) > 1]
    if not long:
        return [_Trunk(prefix, len(prefix), short)]
    if len(long) > 1 and all(may_cache(prefix + one) for one in long):
        return [_Trunk(prefix, len(prefix), short, long)]
    rows = [_Trunk(prefix + one[:-1], len(prefix), [one]) for one in long]
    rows[0].on_row += short
    return rows


def _families(trunks: Sequence[_Trunk]) -> list[list[_Trunk]]:
    """Trunks that begin alike, such as those behind the same examples; last all that begin like no other."""
    by_beginning: dict[Tokens, list[_Trunk]] = {}
    for trunk in trunks:
        by_beginning.setdefault(trunk.tokens[: trunk.known - 1][:SHARED_BEGINNING], []).append(trunk)
    alike = [
        family for key, family in by_beginning.items() if len(family) > 1 and len(key) == SHARED_BEGINNING
    ]  # fmt: skip
    met = {id(trunk) for family in alike for trunk in family}
    return [*alike, [trunk for trunk in trunks if id(trunk) not in met]]


def _batches(trunks: Sequence[_Trunk], batch_tokens: int) -> Iterator[list[_Trunk]]:
    """Rows of like length together, the longest first, so that little is padded and memory runs out at once."""
    batch: list[_Trunk] = []
    rows = 0
    for trunk in sorted(trunks, key=lambda trunk: (not trunk.branches, -trunk.length)):
        alike = not batch or bool(batch[0].branches) == bool(trunk.branches)
        if batch and (not alike or (rows + trunk.rows) * batch[0].length > batch_tokens):
            yield batch
            batch, rows = [], 0
        batch.append(trunk)
        rows += trunk.rows
    if batch:
        yield batch


@torch.inference_mode()
def _answers(model: Transformer, batch: Sequence[_Trunk], common: int) -> list[tuple[_Judged, Answer]]:
    judged = _judge(model, batch, common)
    hidden = torch.cat([one.hidden for one in judged])
    targets = torch.tensor([token for one in judged for token in one.continuation], device=hidden.device)
    likelihoods, likeliest = _token_log_likelihoods(model, hidden, targets)
    sizes = [len(one.continuation) for one in judged]
    return [
        (one, Answer(float(values.sum()), bool(greedy.all())))
        for one, values, greedy in zip(
            judged, torch.split(likelihoods, sizes), torch.split(likeliest, sizes), strict=True
        )
    ]


def _token_log_likelihoods(model: Transformer, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(positions, width), (positions,) -> float64 log-likelihoods and whether no token was likelier, on the CPU."""
    likelihoods, likeliest = [], []
    chunk = TILING.whole_rows(model.config.vocabulary_size)
    for states, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        logits = softmax_ready(model.head(states))
        chosen = logits.gather(1, wanted[:, None])[:, 0]
        likelihoods.append((chosen - logits.logsumexp(1)).double().cpu())
        likeliest.append((logits.argmax(1) == wanted).cpu())
    return torch.cat(likelihoods), torch.cat(likeliest)


def _judge(model: Transformer, batch: Sequence[_Trunk], common: int) -> list[_Judged]:
    branches = [(row, one) for row, trunk in enumerate(batch) for one in trunk.branches]
    cache = _cache(model, batch, common) if common or branches else None
    hidden = _hidden_states(model, [trunk.tokens[common:] for trunk in batch], cache)
    judged = []
    for trunk, states in zip(batch, hidden, strict=True):
        first = trunk.known - 1 - common
        judged += [_Judged(trunk, one, states[first : first + len(one)]) for one in trunk.on_row]
    if branches:
        assert cache is not None
        cache.keep([row for row, _ in branches])
        behind = _hidden_states(model, [one[:-1] for _, one in branches], cache)
        for (row, one), states in zip(branches, behind, strict=True):
            last = hidden[row, batch[row].known - 1 - common]
            judged.append(_Judged(batch[row], one, torch.cat((last[None], states[: len(one) - 1]))))
    return judged


def _common_beginning(batch: Sequence[_Trunk]) -> int:
    """Tokens with which all rows begin, if they are many; at least one of each prefix is left over."""
    if len(batch) == 1:
        return 0
    first, *others = (trunk.tokens[: trunk.known - 1] for trunk in batch)
    common = min(map(len, (first, *others)))
    for other in others:
        while first[:common] != other[:common]:
            common = next(place for place in range(common) if first[place] != other[place])
    return common if common >= SHARED_BEGINNING else 0


def _cache(model: Transformer, batch: Sequence[_Trunk], common: int) -> DecoderCache:
    """A cache for each row, which holds the common beginning."""
    capacity = max(trunk.length for trunk in batch)
    if not common:
        return model.new_cache(len(batch), capacity)
    cache = model.new_cache(1, capacity)
    _hidden_states(model, [batch[0].tokens[:common]], cache)
    cache.keep([0] * len(batch))
    return cache


def _hidden_states(model: Transformer, rows: Sequence[Tokens], cache: DecoderCache | None) -> Tensor:
    """(rows, longest row, width); what stands behind a row's end means nothing."""
    counts = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), int(counts.max()), dtype=torch.int64)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = torch.tensor(row)
    tokens = padded.to(model.final_norm.weight.device)
    return model.hidden_states(tokens) if cache is None else model.hidden_states(tokens, cache, counts)
