"""Documents, methods that a test controls, and the stage over them in this process."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.partitions import Engine, PartitionMap
from stages.stage import StageContext
from stages.synthesize import generation, methods
from stages.synthesize.config import SynthesizeConfig
from stages.synthesize.method import Failure
from stages.synthesize.stage import SynthesizeStage
from tests import stores
from tests.stores import commit

Rewriting = Callable[[str, int], str | Failure]
WORDS = [a + b for a in ("mil", "wat", "ston", "gran", "riv", "harv") for b in ("ler", "er", "ing", "ed", "ow", "est")]


def prose(number: int, sentences: int = 6) -> str:
    """Text that no other number has."""
    words = [f"{WORDS[(number * 7 + step * (3 + number % 5)) % len(WORDS)]}{number}" for step in range(sentences * 9)]
    return " ".join(" ".join(words[start : start + 9]) + "." for start in range(0, len(words), 9))


def document(name: str, text: str, **columns: Any) -> dict[str, Any]:
    """Row of a document that the methods take."""
    return stores.document(name, text, **{"genre": "news", "language": "en", **columns})


corpus_of = partial(stores.corpus_artifact, files=2)


class FakeMethod:
    """Applies a function; remembers the batches that it received."""

    name, engine, engine_version = "swap", "fake", "1"

    def __init__(self, function: Rewriting) -> None:
        self.function, self.batches = function, list[list[str]]()

    def rewrite(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Outputs of a batch."""
        self.batches.append(list(texts))
        return [self.function(text, seed) for text, seed in zip(texts, seeds, strict=True)]


def use(monkeypatch: pytest.MonkeyPatch, method: Any) -> Any:
    """Make every config build this method."""
    monkeypatch.setattr(generation, "_method", lambda settings, store: method)  # not into its cache
    monkeypatch.setattr(methods, "build_method", lambda config, store=None: method)
    return method


def config_of(**values: Any) -> SynthesizeConfig:
    """Settings with one method, by default of share 1, and no gates but those named."""
    gates = {
        "max_nearness": None, "min_overlap": None, "max_changed_numbers": None, "max_changed_names": None,
        "clean_rules": False, "near": None,
    }  # fmt: skip
    share = values.pop("share", 1.0)
    return SynthesizeConfig.model_validate(
        {"methods": [{"kind": "swap", "share": share}], **values, "gates": gates | values.get("gates", {})}
    )


def run_stage(
    corpus: Artifact, config: SynthesizeConfig, attempt: str = "made", engine: Engine = "inline", workers: int = 1,
    stage: SynthesizeStage | None = None, key: str = "d" * 64,
) -> Artifact:  # fmt: skip
    """The stage's artifact."""
    stage = stage or SynthesizeStage()
    store = ArtifactStore(corpus.folder.url.rsplit("/", 2)[0])
    out = store.writer("synthesize", key, attempt, stage.output)
    maps = PartitionMap(out.folder, "synthesize", stage.output, out.attempt, engine, workers)
    stage.run(config, {"corpus": corpus}, out, StageContext("run", maps, out.folder, SilentListener()))
    return commit(store, out, "synthesize", key, stage.output)


def rows(artifact: Artifact, folder: str) -> dict[str, dict[str, Any]]:
    """Id -> row of the tables in a folder."""
    tables = [artifact.read_table(path) for path in artifact.paths(f"{folder}/*")]
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def synthetic(artifact: Artifact) -> dict[str, str]:
    """Id -> text of the synthetic documents."""
    return {
        name: row["text"] for name, row in sorted(rows(artifact, "train").items()) if "synthetic" in (row["tags"] or ())
    }


def verdicts(artifact: Artifact) -> dict[str, str]:
    """Id -> verdict of every text."""
    return {name: row["verdict"] for name, row in sorted(rows(artifact, "synthetic").items())}
