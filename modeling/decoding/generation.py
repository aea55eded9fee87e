"""Text goes on, token by token, through the key-value cache; and how fast. For float and int8 networks.

- `generate`, `generate_batch`: sample new tokens
- `prefill_speed`, `decode_speed`: tokens per second of the two phases of generation
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data_schemas.errors import ConfigError
from modeling.decoding.native_decoder import NativeDecoder
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig


def generate(
    model: Transformer,
    prompt_tokens: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    stop_token: int | None = None,
) -> list[int]:
    """Continue one prompt; as `generate_batch`."""
    return generate_batch(model, [prompt_tokens], max_new_tokens, temperature, top_k, seed, stop_token)[0]


@torch.inference_mode()
def generate_batch(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int | Sequence[int],
    stop_token: int | None = None,
    stop_when: Callable[[Sequence[int]], bool] | None = None,
) -> list[list[int]]:
    """Continue prompts of any lengths together; each is continued as it would be alone.

    A row that fills the context goes on from the newest half of it, so that the cost per token stays bounded.

    Args:
        model: a float or an int8 network.
        prompts: at least one token each.
        max_new_tokens: tokens to add at most, to each.
        temperature: divides the logits; 0 always takes the likeliest token.
        top_k: sample among the k likeliest tokens (Fan et al. 2018, 1805.04833, 5.2); 0 for all.
        seed: of the first prompt's sampling, and the others have the numbers after it; or one for each prompt. The same
            seed gives the same tokens.
        stop_token: ends the text when it is drawn, and is not returned.
        stop_when: asked after each token with all new tokens of its text; True ends the text, which keeps the token.

    Returns:
        The new tokens of each prompt.

    Raises:
        ConfigError: for an empty prompt, a negative temperature or a negative top_k.
    """
    if any(not prompt for prompt in prompts) or temperature < 0 or top_k < 0:
        raise ConfigError(
            f"generation got prompts of {', '.join(str(len(prompt)) for prompt in prompts)} tokens, temperature "
            f"{temperature:g} and top_k {top_k}; it needs at least 1 token in each, a temperature of 0 or more and a "
            "top_k of 0 (all tokens) or more"
        )
    seeds = range(seed, seed + len(prompts)) if isinstance(seed, int) else seed
    rows = [_Row(model.config, prompt, own) for prompt, own in zip(prompts, seeds, strict=True)]
    going = rows if max_new_tokens else []
    predictor: _Predictor | None = None
    while going:
        moved = [row.moved() for row in going]
        if predictor is None or any(moved):
            predictor, unseen = _Predictor(model, len(going)), [row.visible for row in going]
        else:
            unseen = [row.tokens[-1:] for row in going]
        logits = predictor.predict(unseen)
        for row, row_logits in zip(going, logits, strict=True):
            row.take(_sample(row_logits, temperature, top_k, row.generator), stop_token, max_new_tokens)
            row.finished = row.finished or bool(stop_when and stop_when(row.new_tokens))
        kept = [place for place, row in enumerate(going) if not row.finished]
        if len(kept) < len(going):
            going = [going[place] for place in kept]
            predictor.keep(kept)
    return [row.new_tokens for row in rows]


class _Row:
    """One text of a batch, and from where on the cache holds it."""

    def __init__(self, config: TransformerConfig, prompt: Sequence[int], seed: int) -> None:
        self._config = config
        self.tokens = list(prompt)
        self.generator = torch.Generator().manual_seed(seed)
        self.finished = False
        self._prompt_length = len(prompt)
        self._start = max(0, len(prompt) - config.context_length, self._document_start())

    @property
    def visible(self) -> list[int]:
        """The tokens that the next one is predicted from."""
        return self.tokens[self._start :]

    @property
    def new_tokens(self) -> list[int]:
        """What was added to the prompt."""
        return self.tokens[self._prompt_length :]

    def take(self, token: int, stop_token: int | None, max_new_tokens: int) -> None:
        """Add a token, unless it ends the text."""
        if token == stop_token:
            self.finished = True
            return
        self.tokens.append(token)
        self.finished = len(self.new_tokens) == max_new_tokens

    def moved(self) -> bool:
        """Move the start where the context is full or a new document has begun; True if it moved."""
        before, context = self._start, self._config.context_length
        if len(self.tokens) - self._start > context:
            self._start = len(self.tokens) - max(context // 2, 1)
        self._start = max(self._start, self._document_start())
        return self._start != before

    def _document_start(self) -> int:
        """Place of the last end-of-text token, before which attention does not look if documents are separate."""
        end = self._config.end_of_text
        if not self._config.separate_documents or end not in self.tokens:
            return 0
        return len(self.tokens) - 1 - self.tokens[::-1].index(end)


class _Predictor:
    """A network and what it has seen of some rows of text."""

    def __init__(self, model: Transformer, rows: int) -> None:
        self._model = model
        self._cache = model.new_cache(rows)
        self._native = NativeDecoder.of(model, self._cache)

    def predict(self, unseen: Sequence[Sequence[int]]) -> Tensor:
        """Logits (rows, vocabulary) behind the last of each row's tokens that were not seen yet."""
        if self._native and (self._native.takes_prompts or all(len(tokens) == 1 for tokens in unseen)):
            return self._native.predict(unseen)
        counts = torch.tensor([len(tokens) for tokens in unseen])
        padded = torch.zeros(len(unseen), int(counts.max()), dtype=torch.int64)
        for row, tokens in zip(padded, unseen, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        hidden = self._model.hidden_states(padded.to(self._model.final_norm.weight.device), self._cache, counts)
        return self._model.head(hidden[torch.arange(len(unseen)), counts - 1])  # type: ignore[no-any-return]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all other rows."""
        self._cache.keep(rows)
        self._native = NativeDecoder.of(self._model, self._cache)


def _sample(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    # On the CPU, so that a seed draws the same on every device.
    logits = logits.float().cpu() / temperature
    if 0 < top_k < len(logits):
        kept, indices = logits.topk(top_k)
        return int(indices[kept.softmax(-1).multinomial(1, generator=generator)])
    return int(logits.softmax(-1).multinomial(1, generator=generator))


@torch.inference_mode()
def prefill_speed(model: Transformer, repeats: int = 5) -> float:
    """Tokens per second of reading one full context into the cache; median over `repeats`."""
    prompt = _arbitrary_tokens(model, model.config.context_length)

    def prefill() -> float:
        return _seconds(lambda: model.head(model.hidden_states(prompt, model.new_cache(batch=1))[:, -1]))

    prefill()
    return prompt.numel() / statistics.median(prefill() for _ in range(repeats))


@torch.inference_mode()
def decode_speed(model: Transformer, new_tokens: int = 32, repeats: int = 5) -> float:
    """Tokens per second of greedy generation behind half a context, one sequence; median over `repeats`.

    Args:
        model: a float or an int8 network.
        new_tokens: tokens per repeat; half the context length where that is less.
        repeats: measurements, after one that does not count.
    """
    prompt = _arbitrary_tokens(model, max(model.config.context_length // 2, 1))[0].tolist()
    steps = min(new_tokens, model.config.context_length - len(prompt))

    def decode() -> float:
        predictor = _Predictor(model, rows=1)
        token = int(predictor.predict([prompt])[0].argmax())

        def steps_one_by_one() -> None:
            nonlocal token
            for _ in range(steps):
                token = int(predictor.predict([[token]])[0].argmax())

        return _seconds(steps_one_by_one)

    decode()
    return steps / statistics.median(decode() for _ in range(repeats))


def _arbitrary_tokens(model: Transformer, count: int) -> Tensor:
    """(1, count) int64; which tokens they are does not change the time."""
    return (torch.arange(count, device=model.final_norm.weight.device) % model.config.vocabulary_size)[None]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
