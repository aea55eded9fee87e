"""Folders of published architectures, with random weights, as transformers' own `save_pretrained` writes them.

Every field of the published `config.json` that decides what the network computes is kept: activation, residual, rotary
positions, norms, soft caps, windows, attention groups, tied embeddings, special tokens, dtype of the weights, context.
Only these are smaller: layers, widths (with the heads, in their published proportion) and the vocabulary, which is that
of a small tokenizer of the published kind. Weights are drawn with ten times the published deviation, so that answers
differ clearly.
"""

import json
from functools import cache
from pathlib import Path

import tokenizers
import torch
import transformers

from stages.tokenize import byte_level_bpe
from tests.stages.benchmark.networks import TEXT

BYTES = [f"<0x{value:02X}>" for value in range(256)]
DTYPES = {"pythia-70m": "float16", "llama-3.2-1b": "bfloat16", "gemma-3-1b": "bfloat16"}
SIZES = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 8,
    "initializer_range": 0.2,
}  # fmt: skip

CONFIGS: dict[str, dict] = {
    # EleutherAI/pythia-70m: 6 layers x 512
    "pythia-70m": {
        "model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0,
        "hidden_act": "gelu", "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "rotary_emb_base": 10000,
        "rotary_pct": 0.25, "tie_word_embeddings": False, "use_cache": True, "use_parallel_residual": True,
    },
    # openai-community/gpt2: 12 layers x 768
    "gpt2": {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
        "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "bos_token_id": 0, "eos_token_id": 0,
        "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "n_positions": 1024, "summary_activation": None,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True,
    },
    # TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T, the architecture of Llama 2: 22 layers x 2,048, 32 heads on 4
    "tinyllama-1.1b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "max_position_embeddings": 2048, "num_key_value_heads": 1, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False, "use_cache": True,
    },
    # meta-llama/Llama-3.2-1B: 16 layers x 2,048, 32 heads on 8
    "llama-3.2-1b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 0, "hidden_act": "silu",
        "max_position_embeddings": 131072, "mlp_bias": False, "num_key_value_heads": 1, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True, "use_cache": True,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
    # google/gemma-2-2b: 26 layers x 2,304, 8 heads on 4
    "gemma-2-2b": {
        "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": 1, "final_logit_softcapping": 30.0, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "num_key_value_heads": 2,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
        "sliding_window": 4096, "use_cache": True,
    },
    # google/gemma-3-1b-pt: 26 layers x 1,152, 4 heads on 1; layers 1 to 5 of 6 are local, so six are kept
    "gemma-3-1b": {
        "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": 1, "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 32768, "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "use_cache": True, "num_hidden_layers": 6,
    },
}  # fmt: skip


def save(name: str, folder: Path, **options) -> Path:
    """Save config, weights and tokenizer of a published architecture; `options` are those of `save_pretrained`."""
    tokenizer = TOKENIZERS[name]()
    fields = SIZES | CONFIGS[name] | {"vocab_size": len(tokenizer)}
    if name == "gpt2":
        names = {"num_hidden_layers": "n_layer", "hidden_size": "n_embd", "num_attention_heads": "n_head"}
        fields = {names.get(key, key): value for key, value in fields.items() if key not in ("head_dim",)}
        fields["n_inner"] = fields.pop("intermediate_size")
    elif name == "pythia-70m":
        fields.pop("head_dim")
        fields["vocab_size"] = 384  # more rows than tokens, as published: 50,304 for 50,277
    transformers.set_seed(0)
    config = transformers.AutoConfig.for_model(**fields)
    network = transformers.AutoModelForCausalLM.from_config(config)
    network.to(getattr(torch, DTYPES.get(name, "float32"))).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    # The published file, not the one that this version of transformers would write.
    published = fields | {"torch_dtype": DTYPES.get(name, "float32"), "transformers_version": "4.24.0"}
    (folder / "config.json").write_text(json.dumps(published))
    return folder


def _byte_level(**settings) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2, Pythia and Llama 3 have it."""
    backend = tokenizers.Tokenizer.from_str(byte_level_bpe.to_json(_trained_byte_level()).decode())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


@cache
def _trained_byte_level() -> tokenizers.Tokenizer:
    return byte_level_bpe.train([TEXT * 5], 300)


def _llama_3() -> transformers.PreTrainedTokenizerFast:
    """Byte-level, with a token for the beginning that a post-processor sets, as in the published tokenizer.json."""
    end, begin = "<|endoftext|>", "<|begin_of_text|>"
    tokenizer = _byte_level(eos_token=end, bos_token=begin)
    return _with_first_token(tokenizer, begin)


def _with_first_token(tokenizer: transformers.PreTrainedTokenizerFast, token: str):
    number = tokenizer.convert_tokens_to_ids(token)
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, number)]
    )
    return tokenizer


@cache
def _sentencepiece_merges(prefix: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE over text with spaces as "▁", with all bytes, as SentencePiece trains it."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=420, special_tokens=[*prefix, *BYTES], show_progress=False)
    backend.train_from_iterator([TEXT * 5], trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _llama_2():
    vocabulary, merges = _sentencepiece_merges(("<unk>", "<s>", "</s>"))
    tokenizer = transformers.LlamaTokenizer(
        vocab=dict(vocabulary), merges=list(merges), add_bos_token=True, add_eos_token=False, legacy=False
    )
    return _with_first_token(tokenizer, "<s>")


def _gemma():
    vocabulary, merges = _sentencepiece_merges(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))
    tokenizer = transformers.GemmaTokenizer(vocab=dict(vocabulary), merges=list(merges), add_bos_token=True)
    return _with_first_token(tokenizer, "<bos>")


TOKENIZERS = {
    "pythia-70m": lambda: _byte_level(eos_token="<|endoftext|>", bos_token="<|endoftext|>", unk_token="<|endoftext|>"),
    "gpt2": lambda: _byte_level(eos_token="<|endoftext|>", bos_token="<|endoftext|>", unk_token="<|endoftext|>"),
    "tinyllama-1.1b": _llama_2,
    "llama-3.2-1b": _llama_3,
    "gemma-2-2b": _gemma,
    "gemma-3-1b": _gemma,
}
