"""Text generation with a key-value cache, and its speed; for float and quantized networks.

- `generate`, `generate_batch`: sample new tokens
- `prefill_speed`, `decode_speed`: tokens per second of the two phases of generation
- `decode_bytes`: memory of decoding, in torch or in C
"""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import takewhile

import torch
from torch import Tensor

from data_schemas.errors import ConfigError
from modeling.decoding.continuations import MIN_COMMON_TOKENS, caches_exactly
from modeling.decoding.native_decoder import NativeDecoder
from modeling.evaluation.peak_memory import peak_tensor_bytes, tensor_bytes
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
    """Continue a single prompt; see `generate_batch`."""
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
    """Continue prompts of different lengths in a batch; each continuation is the same as without the others.

    The beginning that all prompts share, such as the examples of a few-shot prompt, is read once.

    A row that fills the context continues from its newest half, so that the cost per token is bounded.

    Args:
        model: float or quantized network.
        prompts: at least one token each.
        max_new_tokens: maximum number of new tokens per prompt.
        temperature: divisor of the logits; 0: greedy decoding.
        top_k: sample among the k most likely tokens (Fan et al. 2018, 1805.04833, section 5.2); 0: all tokens.
        seed: sampling seed of the first prompt, increased by one for each further prompt; or a seed for each prompt.
            The same seed gives the same tokens.
        stop_token: token that ends a text; not returned.
        stop_when: callback after each token with all new tokens of its text; True ends the text after the token.

    Returns:
        New tokens of each prompt.

    Raises:
        ConfigError: for an empty prompt, a negative temperature or a negative top_k.
    """
    if any(not prompt for prompt in prompts) or temperature < 0 or top_k < 0:
        raise ConfigError(
            f"generation: prompts of {', '.join(str(len(prompt)) for prompt in prompts)} tokens, temperature "
            f"{temperature:g} and top_k {top_k}; accepted are prompts of at least 1 token, a temperature of 0 or more "
            "and a top_k of 0 (all tokens) or more"
        )
    seeds = range(seed, seed + len(prompts)) if isinstance(seed, int) else seed
    rows = [_Row(model.config, prompt, row_seed) for prompt, row_seed in zip(prompts, seeds, strict=True)]
    active = rows if max_new_tokens else []
    predictor: _Predictor | None = None
    while active:
        window_moved = [row.move_window() for row in active]
        if predictor is None or any(window_moved):
            predictor, logits = _Predictor.started(model, [row.window for row in active])
        else:
            logits = predictor.predict([row.tokens[-1:] for row in active])
        for row, row_logits in zip(active, logits, strict=True):
            row.append(_sample(row_logits, temperature, top_k, row.generator), stop_token, max_new_tokens)
            row.finished = row.finished or bool(stop_when and stop_when(row.new_tokens))
        unfinished = [index for index, row in enumerate(active) if not row.finished]
        if len(unfinished) < len(active):
            active = [active[index] for index in unfinished]
            predictor.keep(unfinished)
    return [row.new_tokens for row in rows]


class _Row:
    """A text of a batch, and the start of its window in the cache."""

    def __init__(self, config: TransformerConfig, prompt: Sequence[int], seed: int) -> None:
        self._config = config
        self.tokens = list(prompt)
        self.generator = torch.Generator().manual_seed(seed)
        self.finished = False
        self._prompt_length = len(prompt)
        self._start = max(0, len(prompt) - config.context_length, self._document_start())

    @property
    def window(self) -> list[int]:
        """Tokens that the next token is predicted from."""
        return self.tokens[self._start :]

    @property
    def new_tokens(self) -> list[int]:
        """Tokens after the prompt."""
        return self.tokens[self._prompt_length :]

    def append(self, token: int, stop_token: int | None, max_new_tokens: int) -> None:
        """Append a token, or end the text at the stop token."""
        if token == stop_token:
            self.finished = True
            return
        self.tokens.append(token)
        self.finished = len(self.new_tokens) == max_new_tokens

    def move_window(self) -> bool:
        """Move the start of the window if the context is full or a new document has begun; True if it moved."""
        previous, context = self._start, self._config.context_length
        if len(self.tokens) - self._start > context:
            self._start = len(self.tokens) - max(context // 2, 1)
        self._start = max(self._start, self._document_start())
        return self._start != previous

    def _document_start(self) -> int:
        """Position of the last end-of-text token, where the attended document starts; 0 without separate documents."""
        end = self._config.end_of_text
        if not self._config.separate_documents or end not in self.tokens:
            return 0
        return len(self.tokens) - 1 - self.tokens[::-1].index(end)


class _Predictor:
    """A network with the key-value cache of a batch of texts."""

    def __init__(self, model: Transformer, rows: int, in_c: bool = True) -> None:
        """Start with an empty cache; `in_c`: use the decoder in C if there is one for the network."""
        self._model, self._in_c = model, in_c
        self._cache = model.new_cache(rows)
        self._native = self._native_decoder()

    @classmethod
    def started(cls, model: Transformer, windows: Sequence[Sequence[int]]) -> "tuple[_Predictor, Tensor]":
        """A predictor that has read the windows, and the logits after them; a common beginning is read once."""
        same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*windows, strict=False))
        common = min(sum(1 for _ in same), *(len(window) - 1 for window in windows))
        if len(windows) == 1 or common < MIN_COMMON_TOKENS or not caches_exactly(model):
            predictor = cls(model, len(windows))
            return predictor, predictor.predict(windows)
        predictor = cls(model, 1)
        predictor.predict([windows[0][:common]])
        predictor.keep([0] * len(windows))
        return predictor, predictor.predict([window[common:] for window in windows])

    @property
    def is_native(self) -> bool:
        """Whether tokens are decoded in C."""
        return self._native is not None

    def predict(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Append the input tokens of each row to the cache; logits (rows, vocabulary) after the last of each."""
        if self._native and (self._native.fast_prefill or all(len(tokens) == 1 for tokens in inputs)):
            return self._native.predict(inputs)
        counts = torch.tensor([len(tokens) for tokens in inputs])
        padded = torch.zeros(len(inputs), int(counts.max()), dtype=torch.int64)
        for row, tokens in zip(padded, inputs, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        hidden = self._model.hidden_states(padded.to(self._model.final_norm.weight.device), self._cache, counts)
        return self._model.head(hidden[torch.arange(len(inputs)), counts - 1])  # type: ignore[no-any-return]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows from the cache; a row that is named several times is copied."""
        self._cache.keep(rows)
        self._native = self._native_decoder()

    def _native_decoder(self) -> NativeDecoder | None:
        return NativeDecoder.create(self._model, self._cache) if self._in_c else None


def _sample(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    # On the CPU, so that a seed gives the same tokens on every device.
    logits = logits.float().cpu() / temperature
    if 0 < top_k < len(logits):
        top_logits, indices = logits.topk(top_k)
        return int(indices[top_logits.softmax(-1).multinomial(1, generator=generator)])
    return int(logits.softmax(-1).multinomial(1, generator=generator))


@torch.inference_mode()
def prefill_speed(model: Transformer, repeats: int = 5) -> float:
    """Tokens per second of prefilling a full context; median over `repeats`."""
    prompt = _arbitrary_tokens(model, model.config.context_length)

    def prefill() -> float:
        return _seconds(lambda: model.head(model.hidden_states(prompt, model.new_cache(batch=1))[:, -1]))

    prefill()
    return prompt.numel() / statistics.median(prefill() for _ in range(repeats))


@torch.inference_mode()
def decode_speed(model: Transformer, new_tokens: int = 32, repeats: int = 5) -> float:
    """Tokens per second of greedy decoding after half a context, batch size 1; median over `repeats`.

    Args:
        model: float or quantized network.
        new_tokens: tokens per repeat; at most half the context length.
        repeats: number of measurements, after one for warm-up.
    """
    prompt = _arbitrary_tokens(model, max(model.config.context_length // 2, 1))[0].tolist()
    steps = min(new_tokens, model.config.context_length - len(prompt))

    def decode() -> float:
        predictor = _Predictor(model, rows=1)
        token = int(predictor.predict([prompt])[0].argmax())

        def decode_steps() -> None:
            nonlocal token
            for _ in range(steps):
                token = int(predictor.predict([[token]])[0].argmax())

        return _seconds(decode_steps)

    decode()
    return steps / statistics.median(decode() for _ in range(repeats))


@torch.inference_mode()
def decode_bytes(model: Transformer, in_c: bool, new_tokens: int = 16) -> int | None:
    """Peak bytes of all tensors while one sequence grows to a full context; None if no decoder in C takes the network.

    Weights, caches and what one token needs are counted, but not the activations of a prompt: how many tokens of it are
    read at a time is up to the reader. Memory inside a kernel is not counted.

    Args:
        model: a float or an int8 network.
        in_c: by the decoder in C, or by torch; networks are comparable if the same decoder was measured.
        new_tokens: tokens decoded; the context length less one if that is less.
    """
    context = model.config.context_length
    steps = min(new_tokens, context - 1)
    prompt = _arbitrary_tokens(model, context - steps)[0].tolist()
    predictor = _Predictor(model, 1, in_c)
    if in_c and not predictor.is_native:
        return None

    def start() -> None:
        nonlocal predictor
        predictor = _Predictor(model, 1, in_c)  # again, so that its tensors are counted
        predictor.predict([prompt])

    def decode() -> None:
        for _ in range(steps):
            predictor.predict([[1]])

    return tensor_bytes(model) + peak_tensor_bytes(decode, preparation=start)


def _arbitrary_tokens(model: Transformer, count: int) -> Tensor:
    """(1, count) int64; the time does not depend on the tokens."""
    return (torch.arange(count, device=model.final_norm.weight.device) % model.config.vocabulary_size)[None]


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
