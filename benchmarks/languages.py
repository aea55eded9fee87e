"""Near-duplicates and rules by language: `python -m benchmarks.languages [--quick] [--texts FOLDER]`.

- recall: of pairs planted in eighteen languages at a Jaccard similarity of 0.80 to 0.81 by words, the share that the
  default settings of dedup find; lowest over the languages (words of `benchmarks/common/languages.py`)
- kept: of documents of our own sentences in these languages, the share that the default rules of clean keep, lowest
  over the languages; the sentences are few, so that the rules for repetition are off
- with `--texts`, which contains LANGUAGE.jsonl with a field `text`: the funnel of these by language
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.common.dedup_process import run_stage
from benchmarks.common.documents import write_documents
from benchmarks.common.languages import CODES, document, joined, near_copy
from stages.clean.config import CleanConfig
from stages.clean.document_cleaner import Cleaner
from stages.clean.rules_config import Rules

_REPETITION = [name for name in Rules.model_fields if "_gram" in name]


def main() -> None:
    """Print the tables and the lowest shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="25 pairs per language, not 200")
    parser.add_argument("--texts", type=Path, help="folder with LANGUAGE.jsonl")
    arguments = parser.parse_args()
    pairs = 25 if arguments.quick else 200
    recall = {code: planted_recall(code, pairs) for code in CODES}
    own = Cleaner(CleanConfig.model_validate({"rules": {name: {"action": "off"} for name in _REPETITION}}))
    kept = {code: verdicts(own, [joined(code, document(code, seed, 10)) for seed in range(50)]) for code in CODES}
    table = Table("language", "recall at 0.8", "kept of 50")
    for code in CODES:
        table.add_row(code, f"{recall[code]:.3f}", str(kept[code]["kept"]))
    Console().print(table)
    if arguments.texts:
        Console().print(funnel(arguments.texts))
    lowest = min(counts["kept"] / 50 for counts in kept.values())
    print(json.dumps({"recall": round(min(recall.values()), 3), "kept": lowest, "pairs": pairs * len(CODES)}))


def planted_recall(code: str, pairs: int) -> float:
    """Share of the planted pairs of which one member is left."""
    texts: list[tuple[str, str]] = []
    for number in range(pairs):
        words = document(code, number, sentences=30)
        texts += [(f"{number}", joined(code, words)), (f"{number} copy", joined(code, near_copy(code, words, number)))]
    with tempfile.TemporaryDirectory() as folder:
        kept = Counter(name.split()[0] for name in run_stage(folder, write_documents(folder, [texts]))[0])
    return sum(kept[f"{number}"] < 2 for number in range(pairs)) / pairs


def verdicts(cleaner: Cleaner, texts: Iterable[str]) -> Counter[str]:
    """Number of texts kept, dropped by each rule, and detected in each language."""
    counts: Counter[str] = Counter()
    for text in texts:
        row = {"text": text, "genre": "web", "url": None, "source": "", "path": "", "language": None}
        cleaned = cleaner.clean(row)
        counts[cleaned.dropped_by or "kept"] += 1
        counts[f"in {cleaned.language}"] += cleaned.dropped_by is None
    return counts


def funnel(folder: Path) -> Table:
    """Verdicts of the default rules on the texts of each file."""
    table = Table("file", "texts", "kept", "in the language of the file", "in English", "dropped by")
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            counts = verdicts(Cleaner(CleanConfig()), (json.loads(line)["text"] for line in lines))
        rules = {name: count for name, count in counts.most_common() if name != "kept" and not name.startswith("in ")}
        own = counts[f"in {path.stem}"]
        dropped = ", ".join(f"{name} {count}" for name, count in list(rules.items())[:3])
        total = counts["kept"] + sum(rules.values())
        table.add_row(path.stem, *map(str, (total, counts["kept"], own, counts["in en"])), dropped)
    return table


if __name__ == "__main__":
    main()
