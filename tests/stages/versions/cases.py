"""The configs that each stage is run with on fixed inputs; a new stage needs cases here.

- `CASES`: stage -> function that runs its cases
- `contents_of`: what a stage makes of them
"""

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import torch

from data_schemas.artifact_kinds import COMPRESSED_MODEL
from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.filesystem import Folder
from infra.workers.partitions import PartitionMap
from stages.common.token_stream import TokenStream, WindowSampler
from stages.registry import stage_named
from stages.stage import StageContext
from tests.stages.versions import inputs, text
from tests.stages.versions.contents import Contents, add_data, add_trained, digest
from tests.stores import commit

STORE = "memory://versions"
"""A name that never changes, since some files contain URLs as configured."""
SHAPE = {"layers": 2, "width": 16, "heads": 2, "context_length": 32}
RECOVERY = {"tokens": 512, "batch_tokens": 256}


def contents_of(name: str) -> Contents:
    """Run the cases of a stage.

    Raises:
        KeyError: for a stage without cases.
    """
    contents = Contents()
    threads = torch.get_num_threads()
    with patch("torch.cuda.is_available", return_value=False):
        torch.set_num_threads(1)
        try:
            CASES[name](contents)
        finally:
            torch.set_num_threads(threads)
            Folder(STORE).remove()
    return contents


def _run(name: str, case: str, config: Mapping[str, Any], made_from: Mapping[str, Artifact]) -> Artifact:
    stage, store, key = stage_named(name), ArtifactStore(STORE), inputs.key(f"{name} {case}")
    out = store.writer(name, key, "fixed", stage.output)
    maps = PartitionMap(out.folder, name, stage.output, out.attempt)
    context = StageContext("fixed", maps, out.folder.child("work"), SilentListener())
    stage.run(stage.Config.model_validate(config), made_from, out, context)
    return commit(store, out, name, key, stage.output)


def _ingest(contents: Contents) -> None:
    for path, data in inputs.source_files().items():
        Folder(STORE).write(f"sources/{path}", data)
    sources = f"{STORE}/sources"
    named = {"title": "kind", "language": "lang", "date": "year"}
    config = {
        "sources": [
            {"path": f"{sources}/lines/*", "fields": named, "keep": ["kind"], "source": "lines", "genre": "news"},
            {"path": f"{sources}/lines/*", "where": {"kind": "forum"}, "source": "forum", "language": "en"},
            {"path": f"{sources}/table/*", "source": "table", "licence": "CC-BY-4.0"},
            {"path": f"{sources}/text/[op]*", "source": "text"},
            {"path": f"{sources}/text/b*", "text_format": "gutenberg", "source": "books", "genre": "books"},
            {"path": f"{sources}/wiki/*", "format": "wikipedia_dump", "source": "wiki", "genre": "wiki"},
            {"path": f"{sources}/web/*", "source": "web", "genre": "web"},
        ],
        "max_reject_share": 1.0,
        "partition_bytes": 6_000,
        "max_document_bytes": 40_000,
    }
    add_data(contents, "formats", _run("ingest", "formats", config, {}))


def _clean(contents: Contents) -> None:
    documents = {"documents": inputs.documents(STORE, text.RAW)}
    add_data(contents, "defaults", _run("clean", "defaults", {}, documents))
    stage = stage_named("clean")
    rules = stage.Config.model_fields["rules"].get_default(call_default_factory=True)  # type: ignore[call-arg]
    lines = stage.Config.model_fields["lines"].get_default(call_default_factory=True)  # type: ignore[call-arg]
    config = {
        "boilerplate": {"min_documents": 4, "min_share": 0.5},
        "lines": {rule: {"action": "drop"} for rule in type(lines).model_fields},
        "rules": {rule: {"action": "tag"} for rule in type(rules).model_fields} | {"badwords": {"action": "drop"}},
        "languages": ["en", "fr"],
        "quality_classifier": {"reference": ["books", "wiki"], "web": ["web"], "hash_bits": 12},
        "perplexity": {"reference": ["books", "wiki"]},
        "by_genre": {"books": {"lines": {"refinedweb_navigation": {"action": "off"}}}},
    }
    add_data(contents, "everything", _run("clean", "everything", config, documents))


def _dedup(contents: Contents) -> None:
    documents = {"documents": inputs.documents(STORE, text.CORPUS)}
    add_data(contents, "defaults", _run("dedup", "defaults", {"held_out_share": 0.2}, documents))
    Folder(STORE).write("benchmarks/items.jsonl", inputs.json_lines(text.ITEMS))
    earlier = _run(
        "dedup",
        "earlier",
        {"held_out_share": 0.4},
        {"documents": inputs.documents(STORE, text.EARLIER, name="earlier")},
    )
    config = {
        "against": [f"{earlier.folder.url}/{earlier.manifest.attempt}"],
        "decontaminate": {"benchmarks": [f"{STORE}/benchmarks/*"], "action": "cut", "max_windows": 2},
        "paragraphs": {},
        "exact_substring": {"min_bytes": 80},
        "survivor": {"order": ["quality", "length"]},
        "near": {"verify": "signature", "similarity": 0.7},
        "min_characters_left": 50,
        "held_out_share": 0.2,
        "seed": 3,
    }
    add_data(contents, "everything", _run("dedup", "everything", config, documents))


def _synthesize(contents: Contents) -> None:
    gates = {"max_nearness": 0.9, "clean_rules": False, "max_changed_numbers": 2}
    methods = [{"kind": "swap", "share": 1}, {"kind": "deletion", "share": 0.5}, {"kind": "swap", "alpha": 0.3}]
    config = {"methods": methods, "gates": gates, "shares": {"news": {"swap": 0.5}}, "rounds": 2, "seed": 3}
    add_data(contents, "text", _run("synthesize", "text", config, {"corpus": _corpus()}))


def _profile(contents: Contents) -> None:
    corpus = {"corpus": _corpus()}
    add_data(contents, "defaults", _run("profile", "defaults", {"coverage": None}, corpus))
    few = {"coverage": None, "word_types": 1_024, "ngram_types": 1_024, "slices": {"genre": 1, "source": 0}}
    add_data(contents, "sketches", _run("profile", "sketches", few, corpus))


def _tokenize(contents: Contents) -> None:
    corpus = {"corpus": _corpus()}
    add_data(contents, "all", _run("tokenize", "all", {"vocabulary_size": 400}, corpus))
    few = {"vocabulary_size": 300, "training_bytes": 4_000}
    add_data(contents, "few", _run("tokenize", "few", few, corpus))


def _corpus() -> Artifact:
    held_out = [text.document(f"held-out-{n}", text.prose(("held out", n), 8)) for n in range(6)]
    other = text.document("other", "Ærøskøbing — 漢字, 12345 <|endoftext|> \t\n  x=1;")
    return inputs.corpus(STORE, [*text.CORPUS[:12], other], held_out)


def _pretrain(contents: Contents) -> None:
    tokens = inputs.tokens(STORE, _corpus())
    common = {
        "workers": 0, "tokens": 4_096, "batch_tokens": 256, "micro_batch": 4, "precision": "fp32",
        "log_every_steps": 2, "checkpoint_every_steps": 16, "warmup_share": 0.2,
        "ensemble": {"checkpoints": 2},
    }  # fmt: skip
    plain = {"model": SHAPE, "sample_every_steps": 8, "sample_tokens": 8, "first_batch_tokens": 128, "z_loss": 1e-4}
    mixed = {
        "model": {
            **SHAPE, "experts": {"experts": 4, "expert_width": 16, "shared_width": 8}, "tied_embeddings": False,
            "attention": [{"kind": "pooled", "window": 8, "levels": [{"stride": 4}]}, {"kind": "window", "window": 8}],
            "separate_documents": True,
        },
        "ensemble": {"checkpoints": 0, "half_life_share": 0},
        "optimizer": "muon", "schedule": "constant_then_decay", "peak_learning_rate": 2e-3, "seed": 5,
    }  # fmt: skip
    for case, config in (("plain", plain), ("mixed", mixed)):
        artifact = _run("pretrain", case, common | config, {"tokens": tokens})
        add_trained(contents, case, artifact, {})
    rows = WindowSampler(TokenStream(tokens, "train"), SHAPE["context_length"], 5).rows(0, 300)
    contents.files["data order"] = digest(rows.tolist())


PASSES: dict[str, list[dict[str, Any]]] = {
    "chain": [
        {"kind": "distill", "layers": 2, "width": 8, "heads": 1, "calibration_rows": 4, "recovery": RECOVERY},
        {"kind": "structured", "neurons_share": 0.75, "calibration_rows": 4, "recovery": RECOVERY},
        {"kind": "linear_attention", "layers": [0], "transfer_steps": 2, "transfer_rows": 2, "recovery": RECOVERY},
        {"kind": "low_rank", "times_smaller": 1.5, "calibration_rows": 4, "recovery": RECOVERY},
        {"kind": "sparse_activations", "calibration_rows": 4, "recovery": RECOVERY},
        {"kind": "prune", "rounds": 2, "calibration_rows": 4, "recovery": RECOVERY},
        {"kind": "int8"},
    ],
    "static": [
        {"kind": "lsh_attention", "layers": [1], "recovery": RECOVERY},
        {"kind": "prune", "pattern": "2:4", "criterion": "wanda", "rounds": 1, "recovery": RECOVERY},
        {"kind": "int8", "rounding": "gptq", "activations": "static", "smoothing": 0.5, "calibration_rows": 4},
    ],
    "cache": [{"kind": "int8", "cache": "int8"}],
    "packed": [{"kind": "int4", "calibration_rows": 4}],
}  # fmt: skip
MEASURED = (
    "name", "settings", "parameters", "nonzero_parameters", "bytes", "weight_bytes", "flops_per_token",
    "macs_per_token", "nonzero_macs_per_token", "bit_operations_per_token", "bits_per_byte", "bits_change",
)  # fmt: skip
INEXACT = ("nonzero_parameters", "nonzero_macs_per_token", "bit_operations_per_token", "bytes")
"""Counts held as figures: a weight near a rounding border may fall to either side, and a scale in a config may have
fewer digits."""


def _compress(contents: Contents) -> None:
    tokens = inputs.tokens(STORE, _corpus())
    model = inputs.model(STORE, inputs.network(**SHAPE))
    for case, passes in PASSES.items():
        config = {"passes": passes, "measured_bytes": 1_000, "precision": "fp32"}
        artifact = _run("compress", case, config, {"model": model, "tokens": tokens})
        rows = [{name: row[name] for name in MEASURED if name in row} for row in artifact.manifest.metrics["passes"]]
        for row in rows:
            row.update({name: float(row[name]) for name in INEXACT})
        add_trained(contents, case, artifact, {"passes": rows})


def _benchmark(contents: Contents) -> None:
    corpus = _corpus()
    tokens = inputs.tokens(STORE, corpus)
    model = inputs.model(STORE, inputs.network(**SHAPE))
    smaller = inputs.model(STORE, inputs.network(**SHAPE | {"width": 8}), COMPRESSED_MODEL)
    config = {
        "held_out_bytes": 3_000, "calibration_bytes": 1_000, "memorization_documents": 4,
        "baseline_training_bytes": 20_000, "prompts": ["The mill", ""], "sample_tokens": 6,
        "tasks": [
            {"kind": "winograd", "limit": 4}, {"kind": "glue", "sets": ["RTE", "STS-B"], "limit": 3},
            {"kind": "squad", "limit": 2},
            {"kind": "word_problems", "data": "gsm8k", "limit": 2, "examples": 1, "max_new_tokens": 4},
        ],
    }  # fmt: skip
    made_from = {"corpus": corpus, "tokens": tokens, "model": model, "compressed": smaller}
    add_trained(contents, "tasks", _run("benchmark", "tasks", config, made_from), {})


CASES: dict[str, Callable[[Contents], None]] = {
    "ingest": _ingest,
    "clean": _clean,
    "dedup": _dedup,
    "synthesize": _synthesize,
    "profile": _profile,
    "tokenize": _tokenize,
    "pretrain": _pretrain,
    "compress": _compress,
    "benchmark": _benchmark,
}
