"""Text goes on, token by token, through the key-value cache; and how fast. For float and int8 networks.

- `generate`: sample new tokens
- `prefill_speed`, `decode_speed`: tokens per second of the two phases of generation
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from data_schemas.errors import ConfigError
from modeling.transformer import Transformer


@torch.inference_mode()
def generate(
    model: Transformer,
    prompt_tokens: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    stop_token: int | None = None,
) -> list[int]:
    """Continue a prompt.

    Args:
        model: a float or an int8 network.
        prompt_tokens: at least one token.
        max_new_tokens: tokens to add at most.
        temperature: divides the logits; 0 always takes the likeliest token.
        top_k: sample among the k likeliest tokens (Fan et al. 2018, 1805.04833, 5.2); 0 for all.
        seed: of the sampling; the same seed gives the same tokens.
        stop_token: ends the text when it is drawn, and is not returned.

    Returns:
        The new tokens.

    Raises:
        ConfigError: for an empty prompt, a negative temperature or a negative top_k.
    """
    if not prompt_tokens or temperature < 0 or top_k < 0:
        raise ConfigError(
            f"generation got a prompt of {len(prompt_tokens)} tokens, temperature {temperature:g} and top_k {top_k}; "
            "it needs at least 1 token, a temperature of 0 or more and a top_k of 0 (all tokens) or more"
        )
    generator = torch.Generator().manual_seed(seed)
    tokens = list(prompt_tokens)
    new_tokens: list[int] = []
    for logits in _next_logits(model, tokens):
        if len(new_tokens) == max_new_tokens:
            break
        drawn = _sample(logits, temperature, top_k, generator)
        if drawn == stop_token:
            break
        tokens.append(drawn)
        new_tokens.append(drawn)
    return new_tokens


def _next_logits(model: Transformer, tokens: list[int]) -> Iterator[Tensor]:
    """Logits (vocabulary) after `tokens`, again and again while the caller appends to it.

    A full cache is started anew from the newest half of the context, so that the cost per token stays bounded.
    """
    context = model.config.context_length
    device = model.final_norm.weight.device
    unseen = tokens[-context:]
    cache = model.new_cache(batch=1)
    while True:
        hidden = model.hidden_states(torch.tensor([unseen], device=device), cache)
        yield model.head(hidden[:, -1]).squeeze(0)
        unseen = tokens[-1:]
        if cache[0].length == context:
            unseen = tokens[-max(context // 2, 1) :]
            cache = model.new_cache(batch=1)


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
    prompt = _arbitrary_tokens(model, max(model.config.context_length // 2, 1))
    steps = min(new_tokens, model.config.context_length - prompt.numel())

    def decode() -> float:
        cache = model.new_cache(batch=1)
        model.hidden_states(prompt, cache)

        def steps_one_by_one() -> None:
            token = prompt[:, -1:]
            for _ in range(steps):
                token = model(token, cache=cache).argmax(-1)

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
