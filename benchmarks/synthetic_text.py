"""Speed of the methods of `synthesize`, and facts that backtranslation changes.

`python -m benchmarks.synthetic_text [--quick] [--data FOLDER] [--kinds KIND,KIND]`

- speed: KB of parent text per CPU second of this process and the programs that it started, the engine running
- texts: share of documents for which the method had a text
- changed numbers, changed names: share of documents with a number (with its unit or currency) or a name that only
  the parent or only the text has, as the gates of the stage find them; Apertium with and without `protect_facts`

Documents are the first of each genre of a folder with `*.jsonl.gz`, up to 4,000 characters each.
"""

import argparse
import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from data_schemas.errors import EnvironmentProblem
from stages.synthesize.gates.facts import changed_names, changed_numbers
from stages.synthesize.methods import build_method
from stages.synthesize.methods_config import MethodConfig

GENRES = ("books", "education", "forum", "news", "speech", "technical", "web", "wiki")
CASES: dict[str, dict[str, Any]] = {
    kind: {"kind": kind}
    for kind in (
        "swap", "deletion", "synonyms", "insertion", "sentence_shuffling", "keyboard", "ocr", "casing", "punctuation",
        "word_dropout", "span_masking", "infilling", "apertium",
    )
} | {"apertium, facts not protected": {"kind": "apertium", "protect_facts": False}}  # fmt: skip
MAX_CHARACTERS = 4_000
WARM_UP = "The old mill of the village stood by the river."


def main() -> None:
    """Measure every method whose engine is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="5 documents per genre instead of 20")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/corpus"), help="folder with *.jsonl.gz")
    parser.add_argument("--kinds", default="", help="only these kinds of methods, with commas between them")
    arguments = parser.parse_args()
    texts = _texts(arguments.data, 5 if arguments.quick else 20)
    wanted = set(arguments.kinds.split(",")) - {""}
    rows = {
        name: _measure(settings, texts) for name, settings in CASES.items() if not wanted or settings["kind"] in wanted
    }
    table = Table("method", "KB per CPU s", "texts", "changed numbers", "changed names")
    for name, row in rows.items():
        table.add_row(
            name, *(f"{value:,.0f}" if key == "kb_per_second" else f"{value:.1%}" for key, value in row.items())
        )
    Console(width=100).print(table)
    print(json.dumps({"documents": len(texts), "kilobytes": round(_kilobytes(texts))} | rows))


def _measure(settings: dict[str, Any], texts: list[str]) -> dict[str, float]:
    try:
        method = build_method(TypeAdapter(MethodConfig).validate_python(settings))
    except EnvironmentProblem as error:
        print(error)
        return {}
    method.rewrite([WARM_UP], [0])
    start = _cpu_seconds()
    outputs = method.rewrite(texts, range(len(texts)))
    seconds = _cpu_seconds() - start
    pairs = [(text, output) for text, output in zip(texts, outputs, strict=True) if isinstance(output, str)]
    return {
        "kb_per_second": _kilobytes(texts) / seconds,
        "texts": len(pairs) / len(texts),
        "changed_numbers": sum(changed_numbers(*pair).amount > 0 for pair in pairs) / max(len(pairs), 1),
        "changed_names": sum(changed_names(*pair, "en").amount > 0 for pair in pairs) / max(len(pairs), 1),
    }


def _cpu_seconds() -> float:
    """CPU time of this process and of those below it that run."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _kilobytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1_000


def _texts(folder: Path, count: int) -> list[str]:
    texts = []
    for genre in GENRES:
        with gzip.open(folder / f"{genre}.jsonl.gz", "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"][:MAX_CHARACTERS] for line in islice(file, count)]
    return texts


if __name__ == "__main__":
    main()
