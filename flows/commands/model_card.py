"""The model card of an export (Mitchell et al. 2019, 1810.03993), written from manifests, in Hugging Face's format.

- `Target`: the exported files
- `model_card`: text of `README.md`

Facts that no manifest records are omitted. The card names no license of the model, which is its owner's choice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from flows.commands.model_facts import ModelFacts
from flows.console import amount

if TYPE_CHECKING:
    from modeling.export.gguf import GeluError

SHOWN_SOURCES = 24
TAGS = {"huggingface": ["gpt_neox"], "gguf": ["gguf"], "onnx": ["onnx"]}
_ONNX_EXAMPLE = """\
from onnxruntime import InferenceSession
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file("{folder}/tokenizer.json")
session = InferenceSession("{folder}/model.onnx", providers=["CPUExecutionProvider"])
tokens = tokenizer.encode("The").ids
for _ in range(40):
    [logits] = session.run(["logits"], {{"tokens": [tokens]}})
    tokens.append(int(logits[0, -1].argmax()))
print(tokenizer.decode(tokens))"""


@dataclass(frozen=True)
class Target:
    """The files that the card describes."""

    format: str
    dtype: str
    folder: str
    """Name of the folder, without its path."""
    gelu_error: "GeluError | None" = None
    """Error of a GGUF file, whose runtime has GELU in place of ReLU."""


def model_card(facts: ModelFacts, target: Target) -> str:
    """The text of `README.md`."""
    sections = [
        _front_matter(facts, target),
        _introduction(facts),
        _section("How to load", [_loading(target)]),
        _section("Network", [_table(("", ""), _network(facts)), *_notes(facts, target)]),
        _section("Training", [_table(("", ""), _training(facts))]),
        _section("Training text", _training_text(facts)),
        _section("Scores", [_table(("task", "metric", "value", "95 % interval", "items"), _score_rows(facts))]),
        _section("Limits", [_limits(facts)]),
        _section("Lineage", [_table(("artifact", "content digest", "made"), _lineage_rows(facts)), _origin(facts)]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: ModelFacts, target: Target) -> str:
    languages = sorted({language for _, _, language in facts.sources if language})
    fields: dict[str, Any] = {"language": languages} if languages else {}
    if target.format == "huggingface":
        fields["library_name"] = "transformers"
    fields["pipeline_tag"] = "text-generation"
    fields["tags"] = ["headrace", *TAGS.get(target.format, [])]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _introduction(facts: ModelFacts) -> str:
    size = f" of {amount(facts.parameters)} parameters" if facts.parameters else ""
    run, config = facts.record.run_id, facts.record.config_name
    return (
        f"# {config}, {run}\n\n"
        f"A language model{size} that continues a text. Headrace trained it from random weights in run `{run}` of "
        f"the config `{config}`; these are the weights of the stage `{facts.manifest.stage}`. It was not trained to "
        "follow instructions."
    )


def _loading(target: Target) -> str:
    if target.format == "huggingface":
        code = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{target.folder}")\n'
            f'model = AutoModelForCausalLM.from_pretrained("{target.folder}")\n'
            'output = model.generate(**tokenizer("The", return_tensors="pt"), max_new_tokens=40)\n'
            "print(tokenizer.decode(output[0]))"
        )
        return f"```python\n{code}\n```"
    if target.format == "onnx":
        return f"```python\n{_ONNX_EXAMPLE.format(folder=target.folder)}\n```"
    if target.format == "gguf":
        return f'```\nllama-completion -m {target.folder}/model.gguf -p "The" -n 40\n```'
    return f'```\nheadrace generate {target.folder} "The"\n```'


def _network(facts: ModelFacts) -> list[tuple[str, str]]:
    config = facts.config
    kinds = dict.fromkeys(kind.kind for kind in config.attention)
    rows = [
        ("architecture", "pre-norm decoder, rotary positions, ReLU feed-forward"),
        ("parameters", f"{facts.parameters:,}"),
        ("layers", f"{config.layers}"),
        ("width", f"{config.width}"),
        ("heads", f"{config.heads}"),
        ("feed-forward width", f"{config.feed_forward_width}"),
        ("attention", ", ".join(kinds)),
        ("context length", f"{config.context_length:,} tokens"),
        ("vocabulary", f"{config.vocabulary_size:,} tokens, byte-level BPE"),
        ("embedding and head", "tied" if config.tied_embeddings else "untied"),
    ]
    if facts.replaced:
        kinds_and_counts = (f"{kind} ({count})" if count > 1 else kind for kind, count in facts.replaced.items())
        rows.append(("replaced by compression", ", ".join(kinds_and_counts)))
    if config.experts is not None:
        rows.append(("experts", ", ".join(f"{name} {value}" for name, value in config.experts.model_dump().items())))
    if config.embedding_bands:
        rows.append(("embedding bands", ", ".join(f"{entries:,} x {width}" for entries, width in config.bands)))
    return rows


def _notes(facts: ModelFacts, target: Target) -> Iterable[str]:
    """Differences between the files and the trained network."""
    if target.format == "huggingface":
        yield (
            f"Stored in {target.dtype} as GPT-NeoX (`hidden_act` relu, sequential residual, rotary positions over "
            "whole heads), which expresses the network exactly."
        )
    if target.format == "onnx":
        yield (
            f"Matrices stored in {target.dtype}; `tokens` (batch, tokens) int64 in, `logits` (batch, tokens, "
            f"{facts.config.vocabulary_size}) float32 out, for any number of rows and tokens. There is no cache: "
            "each new token recomputes its whole row."
        )
    if target.gelu_error:
        yield f"Stored in {target.dtype} as llama.cpp's `gptneox`. {target.gelu_error.sentence()}"
    if facts.config.separate_documents and target.format in ("huggingface", "gguf"):
        yield (
            "In training, attention did not cross document boundaries (`separate_documents`). A text with several "
            "documents in sequence is outside the training distribution."
        )
    if facts.config.base_width or facts.config.base_layers:
        folded = "; its multipliers are folded into these weights" if target.format in ("huggingface", "gguf") else ""
        yield f"Learning rates were transferred from a smaller network (muP){folded}."


def _training(facts: ModelFacts) -> list[tuple[str, str]]:
    pretrain = facts.made_by("pretrain")
    if pretrain is None:
        return []
    metrics = pretrain.metrics
    formats: dict[str, Callable[[Any], str]] = {
        "tokens": lambda value: f"{value:,}",
        "epochs": lambda value: f"{value:.3g}",
        "steps": lambda value: f"{value:,}",
        "final_loss": lambda value: f"{value:.4f} nats per token, on training text",
        "precision": str,
    }
    rows = [(name.replace("_", " "), write(metrics[name])) for name, write in formats.items() if name in metrics]
    if "peak_learning_rate" in pretrain.config:
        rows.append(("peak learning rate", f"{pretrain.config['peak_learning_rate']:g}"))
    if facts.manifest.stage == "compress":
        rows += [
            (f"compression: {row['name']}", f"{amount(row['bytes'], 'B')}, {row['bits_per_byte']:.3f} bits per byte")
            for row in facts.manifest.metrics.get("passes", [])
            if {"name", "bytes", "bits_per_byte"} <= row.keys()
        ]
    return rows


def _training_text(facts: ModelFacts) -> list[str]:
    tokenize = facts.made_by("tokenize")
    counts = tokenize.counts if tokenize else {}
    lines = []
    if {"train_documents", "train_bytes", "train_tokens"} <= counts.keys():
        lines.append(
            f"{counts['train_documents']:,} documents, {amount(counts['train_bytes'], 'B')}, "
            f"{counts['train_tokens']:,} tokens; held-out documents excluded."
        )
    largest = facts.sources.most_common(SHOWN_SOURCES)
    rows = [(source, licence or "not stated", language, f"{count:,}") for (source, licence, language), count in largest]
    others = len(facts.sources) - len(largest)
    if others:
        rest = facts.sources.total() - sum(count for _, count in largest)
        rows.append((f"{others} other sources", "", "", f"{rest:,}"))
    return [*lines, _table(("source", "license as stated there", "language", "documents"), rows)]


def _score_rows(facts: ModelFacts) -> list[tuple[str, ...]]:
    return [
        (
            row["task"],
            f"{row['metric']} ({'higher' if row['higher_is_better'] else 'lower'} is better)",
            f"{row['value']:.4g}",
            "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}",
            f"{row['items']:,}",
        )
        for row in facts.scores
    ]


def _limits(facts: ModelFacts) -> str:
    length = facts.config.context_length
    lines = [
        f"It was trained on sequences of {length:,} tokens; longer contexts are outside the training distribution.",
        "It continues a text with what is likely by its training text, which need not be true.",
    ]
    if facts.scores:
        lines.append("Only the scores above were measured; bias and safety were not.")
    else:
        lines.append("This run measured no scores of this model: neither quality, bias nor safety.")
    return "\n".join(f"- {line}" for line in lines)


def _lineage_rows(facts: ModelFacts) -> list[tuple[str, ...]]:
    return [
        (f"`{ref.label}`", f"`{ref.digest}`", f"{manifest.ended:%Y-%m-%d}" if manifest else "gone from the store")
        for ref, manifest in facts.lineage
    ]


def _origin(facts: ModelFacts) -> str:
    manifest = facts.manifest
    code = manifest.code
    version = f"commit `{code['commit']}`" if "commit" in code else f"version {code.get('version', 'unknown')}"
    changed = ", with uncommitted changes" if code.get("dirty") else ""
    packages = ", ".join(f"{name} {version}" for name, version in manifest.packages.items())
    return f"Made by Headrace, {version}{changed}" + (f", with {packages}." if packages else ".")


def _section(title: str, parts: Iterable[str]) -> str:
    """A heading and its parts; empty if all parts are."""
    body = "\n\n".join(part for part in parts if part)
    return f"## {title}\n\n{body}" if body else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])
