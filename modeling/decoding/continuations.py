"""Log-likelihoods of continuations after their prefixes; shared beginnings are computed once.

- `score_continuations`: log-likelihood of each continuation, and whether it is the greedy continuation
- `split_request`: a continuation longer than the context as several requests
- `caches_exactly`: whether the key-value cache of a network reproduces its forward pass

Computed once, without changing any score: equal requests; a prefix with several continuations (multiple choice), which
is read once into the key-value cache; and the common beginning of all prefixes of a batch (the examples of a few-shot
prompt). lm-evaluation-harness's backend for Hugging Face models reads every request from its first token, except for
continuations of one token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from modeling.attention.key_value_cache import DecoderCache
from modeling.attention.multi_head import Attention
from modeling.evaluation.through_cache import scoring_decoder
from modeling.loss.logit_tiles import TILING, softmax_ready
from modeling.transformer import Transformer

MIN_COMMON_TOKENS = 48
"""Common tokens of a batch's prefixes from which a separate forward pass for them pays off."""

Tokens = tuple[int, ...]


class Request(NamedTuple):
    """A prefix and the continuation to score after it; neither is empty."""

    prefix: Tokens
    continuation: Tokens


class Score(NamedTuple):
    """Natural log-likelihood of a continuation, and whether each of its tokens is the most likely one."""

    log_likelihood: float
    is_greedy: bool


@dataclass
class _Trunk:
    """A row of tokens: continuations that are scored on the row, and branches that follow its end."""

    tokens: Tokens
    prefix_length: int
    """Tokens of the prefix; the tokens after it are of the longest continuation on the row."""
    continuations: list[Tokens]
    branches: list[Tokens] = field(default_factory=list)
    """Continuations that read the row from the key-value cache."""

    @property
    def rows(self) -> int:
        return max(1, len(self.branches))

    @property
    def length(self) -> int:
        return len(self.tokens) + max(map(len, self.branches), default=0)


class _ContinuationStates(NamedTuple):
    """Hidden states that predict the tokens of a continuation."""

    trunk: _Trunk
    continuation: Tokens
    hidden: Tensor
    """(tokens, width)."""


def split_request(request: Request, context: int) -> list[Request]:
    """Split a request with a continuation longer than the context; the log-likelihoods of the parts add up to its own.

    Each part is half a context long and is scored after at least another half, as in `bits_per_byte`.
    """
    prefix, continuation = request
    if len(continuation) <= context:
        return [request]
    step = max(context // 2, 1)
    starts = range(0, len(continuation), step)
    return [Request(prefix + continuation[:start], continuation[start : start + step]) for start in starts]


def score_continuations(
    model: Transformer, requests: Sequence[Request], batch_tokens: int
) -> Iterator[list[tuple[int, Score]]]:
    """Score requests batch by batch, the longest first, so that the caller can store partial results.

    A prefix that is too long for the context is truncated from the left, as in lm-evaluation-harness.

    Args:
        model: network in `eval` mode.
        requests: requests in any order; duplicates cost nothing.
        batch_tokens: maximum number of tokens per batch, padding included; a single request may have more.

    Yields:
        (index of the request, its score) for every request of the batch.
    """
    can_cache = _CacheRule(model)
    indices: dict[Tokens, dict[Tokens, list[int]]] = {}
    for index, request in enumerate(requests):
        prefix, continuation = _truncate(request, model.config.context_length)
        indices.setdefault(prefix, {}).setdefault(continuation, []).append(index)
    trunks = [trunk for prefix, ends in indices.items() for trunk in _trunks(prefix, list(ends), can_cache)]
    for batch in (batch for group in _group_by_beginning(trunks) for batch in _batches(group, batch_tokens)):
        common = _common_tokens(batch) if all(can_cache(trunk.tokens) for trunk in batch) else 0
        yield [
            (index, score)
            for states, score in _scores(model, batch, common)
            for index in indices[states.trunk.tokens[: states.trunk.prefix_length]][states.continuation]
        ]


def _truncate(request: Request, context: int) -> Request:
    prefix, continuation = map(tuple, request)
    assert prefix and continuation, "prefix and continuation have at least one token each"
    assert len(continuation) <= context, "`split_request` splits longer ones"
    # The last token is predicted, not read.
    return Request(prefix[-(context + 1 - len(continuation)) :], continuation)


def caches_exactly(model: Transformer) -> bool:
    """Whether reading tokens from the key-value cache gives the same results as computing them again."""
    # Replacements of attention may cache less than they read: integers, the newest hashes.
    return all(type(layer.attention) is Attention for layer in model.layers.children())


class _CacheRule:
    """Decides whether a prefix can be read from the key-value cache."""

    def __init__(self, model: Transformer) -> None:
        config = model.config
        self._exact = caches_exactly(model)
        self._separator = config.end_of_text if config.separate_documents else None

    def __call__(self, tokens: Tokens) -> bool:
        """True if attention treats the tokens as one document; a cache has no document borders inside its rows."""
        return self._exact and self._separator not in tokens[1:]


def _trunks(prefix: Tokens, continuations: list[Tokens], can_cache: _CacheRule) -> list[_Trunk]:
    """Rows of a prefix: a single one with branches if it can be cached, else one for each longer continuation."""
    short: list[Tokens] = [tokens for tokens in continuations if len(tokens) == 1]
    long: list[Tokens] = [tokens for tokens in continuations if len(tokens) > 1]
    if not long:
        return [_Trunk(prefix, len(prefix), short)]
    if len(long) > 1 and all(can_cache(prefix + tokens) for tokens in long):
        return [_Trunk(prefix, len(prefix), short, long)]
    trunks = [_Trunk(prefix + tokens[:-1], len(prefix), [tokens]) for tokens in long]
    trunks[0].continuations += short
    return trunks


def _group_by_beginning(trunks: Sequence[_Trunk]) -> list[list[_Trunk]]:
    """Groups of trunks with a common beginning, such as the same few-shot examples; the last group has the others."""
    by_beginning: dict[Tokens, list[_Trunk]] = {}
    for trunk in trunks:
        by_beginning.setdefault(trunk.tokens[: trunk.prefix_length - 1][:MIN_COMMON_TOKENS], []).append(trunk)
    groups = [group for key, group in by_beginning.items() if len(group) > 1 and len(key) == MIN_COMMON_TOKENS]
    grouped = {id(trunk) for group in groups for trunk in group}
    return [*groups, [trunk for trunk in trunks if id(trunk) not in grouped]]


def _batches(trunks: Sequence[_Trunk], batch_tokens: int) -> Iterator[list[_Trunk]]:
    """Batches of rows of similar length, the longest first: little padding, and memory runs out early if at all."""
    batch: list[_Trunk] = []
    rows = 0
    for trunk in sorted(trunks, key=lambda trunk: (not trunk.branches, -trunk.length)):
        same_kind = not batch or bool(batch[0].branches) == bool(trunk.branches)
        if batch and (not same_kind or (rows + trunk.rows) * batch[0].length > batch_tokens):
            yield batch
            batch, rows = [], 0
        batch.append(trunk)
        rows += trunk.rows
    if batch:
        yield batch


@torch.inference_mode()
def _scores(model: Transformer, batch: Sequence[_Trunk], common: int) -> list[tuple[_ContinuationStates, Score]]:
    continuations = _continuation_states(model, batch, common)
    hidden = torch.cat([states.hidden for states in continuations])
    targets = torch.tensor([token for states in continuations for token in states.continuation], device=hidden.device)
    log_likelihoods, is_greedy = _token_log_likelihoods(model, hidden, targets)
    sizes = [len(states.continuation) for states in continuations]
    return [
        (states, Score(float(values.sum()), bool(greedy.all())))
        for states, values, greedy in zip(
            continuations, torch.split(log_likelihoods, sizes), torch.split(is_greedy, sizes), strict=True
        )
    ]


def _token_log_likelihoods(model: Transformer, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(positions, width), (positions,) -> float64 log-likelihoods, and whether each token is the argmax, on the CPU."""
    log_likelihoods, is_greedy = [], []
    chunk = TILING.whole_rows(model.config.vocabulary_size)
    for states, tokens in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        logits = softmax_ready(model.head(states))
        token_logits = logits.gather(1, tokens[:, None])[:, 0]
        log_likelihoods.append((token_logits - logits.logsumexp(1)).double().cpu())
        is_greedy.append((logits.argmax(1) == tokens).cpu())
    return torch.cat(log_likelihoods), torch.cat(is_greedy)


def _continuation_states(model: Transformer, batch: Sequence[_Trunk], common: int) -> list[_ContinuationStates]:
    branches = [(row, tokens) for row, trunk in enumerate(batch) for tokens in trunk.branches]
    cache = _cache(model, batch, common) if common or branches else None
    hidden = _hidden_states(model, [trunk.tokens[common:] for trunk in batch], cache)
    results = []
    for trunk, states in zip(batch, hidden, strict=True):
        first = trunk.prefix_length - 1 - common
        results += [
            _ContinuationStates(trunk, tokens, states[first : first + len(tokens)]) for tokens in trunk.continuations
        ]
    if branches:
        assert cache is not None
        cache.keep([row for row, _ in branches])
        branch_hidden = _hidden_states(model, [tokens[:-1] for _, tokens in branches], cache)
        for (row, tokens), states in zip(branches, branch_hidden, strict=True):
            last = hidden[row, batch[row].prefix_length - 1 - common]
            results.append(_ContinuationStates(batch[row], tokens, torch.cat((last[None], states[: len(tokens) - 1]))))
    return results


def _common_tokens(batch: Sequence[_Trunk]) -> int:
    """Length of the common beginning of all prefixes without their last tokens; 0 if it is too short to pay off."""
    if len(batch) == 1:
        return 0
    first, *others = (trunk.tokens[: trunk.prefix_length - 1] for trunk in batch)
    common = min(map(len, (first, *others)))
    for other in others:
        while first[:common] != other[:common]:
            common = next(index for index in range(common) if first[index] != other[index])
    return common if common >= MIN_COMMON_TOKENS else 0


def _cache(model: Transformer, batch: Sequence[_Trunk], common: int) -> DecoderCache:
    """Key-value cache with a row for each trunk, filled with the common beginning."""
    capacity = max(trunk.length for trunk in batch)
    if not common:
        return model.new_cache(len(batch), capacity)
    cache = model.new_cache(1, capacity)
    _hidden_states(model, [batch[0].tokens[:common]], cache)
    cache.keep([0] * len(batch))
    return cache


def _hidden_states(model: Transformer, rows: Sequence[Tokens], cache: DecoderCache | None) -> Tensor:
    """(rows, longest row, width); entries after the end of a row are undefined."""
    counts = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), int(counts.max()), dtype=torch.int64)
    for padded_row, row in zip(padded, rows, strict=True):
        padded_row[: len(row)] = torch.tensor(row)
    tokens = padded.to(model.final_norm.weight.device)
    return scoring_decoder(model).hidden_states(tokens) if cache is None else model.hidden_states(tokens, cache, counts)
