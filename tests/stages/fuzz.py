"""Mutated files through every reader, all rules of clean and the tokenizer's cuts: python -m tests.stages.fuzz.

- `input_of`: the file of a seed: cut, flipped, spliced, repeated, in a wrong encoding, under a wrong name
- `check`: reads it, cleans its documents, and returns what is wrong

The command runs 10,000 seeds in a process that is killed after ten seconds for one of them, and prints the problems,
the longest time and the largest memory. Texts of the shared corpora are used too where they exist.
"""

import argparse
import bz2
import gzip
import json
import lzma
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from stages.clean.config import CleanConfig
from stages.clean.document_cleaner import Cleaner
from stages.clean.rules_config import LineRules, Rules
from stages.ingest import extraction
from stages.ingest.config import SourceConfig
from stages.ingest.file_listing import SourceFile
from stages.ingest.partition import _row
from stages.ingest.readers import read_file
from stages.ingest.records import Failure
from stages.ingest.streams.byte_streams import ByteCounter
from stages.ingest.units import UNKNOWN_GENRE
from stages.tokenize.byte_level_bpe import pieces
from tests.conftest import SHARED_DATA
from tests.stages.ingest.formats.test_html_pages import PAGE
from tests.stages.ingest.formats.test_markup import MARKDOWN, RST
from tests.stages.ingest.formats.test_warc import CODINGS, chunked, record, response
from tests.stages.ingest.formats.test_wikipedia_dump import DUMP
from tests.stages.ingest.sample_files import json_lines, samples

MAX_SECONDS = 10
MAX_MEMORY = 1_000_000_000
MAX_DOCUMENT_BYTES = 1_000_000
MAX_INPUT_BYTES = 2_000_000
MODEL_RULES = ("quality", "perplexity")
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": zstandard.ZstdCompressor().compress,
}  # fmt: skip
TOKENS = [
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n", b"\n\n", b" ", b"\t",
    b'"', b"'", b"{", b"[", b"]", b"}", b",", b"<", b"</", b"<!--", b"-->", b"<ref ", b"<ref>", b"{{", b"{|", b"[[",
    b"{% ", b"{{< ", b"---\n", b"&amp;", b"&#x110000;", b"<page>", b"</page>", b"<text>", b"<script>", b"WARC/1.0\r\n",
    b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"charset=undefined",
    b"http://[spam", b"*** END OF", b"Produced by\n", b"title: &a [*a]\n", "\u200b\u00ad\u2028".encode(),
    "é漢字ไทยमु".encode(), b"192.168.0.1 ", b"a@b.co ", b"+1 555 123 4567 ", b"4111 1111 1111 1111 ", b"1e999",
    b"\\ud800", b"9" * 50, b"$", b"*", b"_", b"`", b"#", b"|", b"=\n", b".. x::\n",
]  # fmt: skip
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1251", "shift_jis", "utf-8-sig", "utf-7", "cp037"]


@dataclass(frozen=True)
class Base:
    """A file that readers can read."""

    name: str
    data: bytes
    source: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Results for one input."""

    documents: int
    rejects: Counter[str]
    problem: str | None


@cache
def bases() -> list[Base]:
    """Small files of every format, and pieces of the shared corpora."""
    pages = [response(COMPRESS[".gz"](PAGE.encode()), more="Content-Encoding: gzip\r\n"), response(PAGE.encode())]
    pages += [response(chunked(code(PAGE.encode())), more=f"Content-Encoding: {name}\r\nTransfer-Encoding: chunked\r\n")
              for name, code in CODINGS.items()]  # fmt: skip
    begin = "Title: X\nRelease date: May 1, 2020\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\nProduced by A\n\n"
    found = [Base(name, data) for name, data in samples().items()]
    found += [
        Base("a.md", MARKDOWN.encode()), Base("a.rst", RST.encode()), Base("a.html", PAGE.encode()),
        Base("a.xml", DUMP.encode()), Base("a.warc", b"".join(pages)), Base("a.wiki", DUMP.encode()),
        Base("b.warc.gz", b"".join(map(gzip.compress, pages))),
        Base("a.txt", f"{begin}{RST}".encode(), {"text_format": "gutenberg"}),
        Base("a.wet", b"".join(record("conversion", text.encode()) for text in (MARKDOWN, RST))),
        Base("a.jsonl", json_lines({"text": PAGE, "url": "http://[spam"}, {"text": RST}), {"text_format": "html"}),
    ]  # fmt: skip
    return found + list(_shared_bases())


def _shared_bases() -> Iterator[Base]:
    kinds = {"web": "markdown", "technical": "rst", "web_html": "html", "wiki": "wikitext", "books": "gutenberg"}
    for path in sorted(SHARED_DATA.glob("corpus/*.jsonl.gz")):
        name = path.name.split(".")[0]
        with gzip.open(path) as file:
            lines = [line for line in (file.readline() for _ in range(40)) if len(line) < 60_000][::4]
        yield Base(f"{name}.jsonl", b"".join(lines), {"text_format": kinds.get(name)})
    for path in sorted(SHARED_DATA.glob("odd_inputs/*/*")):
        if path.stat().st_size < 200_000:
            is_dump = "multistream" in path.name
            yield Base(path.name, path.read_bytes(), {"format": "wikipedia_dump"} if is_dump else {})


def input_of(seed: int) -> Base:
    """The mutated file of a seed."""
    rng = random.Random(seed)
    base = rng.choice(bases())
    data, name = base.data, base.name
    for _ in range(rng.randint(1, 4)):
        data = _mutated(data, rng)[:MAX_INPUT_BYTES]
    if rng.random() < 0.15 and not name.endswith((".parquet", ".arrow", *COMPRESS)):
        ending = rng.choice(list(COMPRESS))
        data, name = COMPRESS[ending](data), name + ending
        if rng.random() < 0.7:
            data = _mutated(data, rng)
    if rng.random() < 0.05:
        other = rng.choice(bases())
        return Base(other.name, data, other.source)
    return Base(name, data, base.source)


def _mutated(data: bytes, rng: random.Random) -> bytes:
    at, end = sorted(rng.randint(0, len(data)) for _ in range(2))
    kind = rng.choice(
        ["cut", "flip", "insert", "repeat", "splice", "drop", "encode", "token run", "line ends", "nothing"]
    )
    if kind == "cut":
        return data[:end]
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(rng.choice([1, 3, 50]) if data else 0):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == "insert":
        return data[:at] + rng.choice(TOKENS) + data[at:]
    if kind == "repeat":
        part = data[at : min(end, at + 2_000)]
        return data[:at] + part * rng.choice([2, 10, min(500, 300_000 // (len(part) + 1))]) + data[at:]
    if kind == "splice":
        other = rng.choice(bases()).data
        start, stop = sorted(rng.randint(0, len(other)) for _ in range(2))
        return data[:at] + other[start:stop] + data[end:]
    if kind == "drop":
        return data[:at] + data[min(end, at + rng.choice([1, 40, 4_000])) :]
    if kind == "encode":
        return data.decode("utf-8", "replace").encode(rng.choice(ENCODINGS), "replace")
    if kind == "token run":
        return data[:at] + rng.choice(TOKENS) * rng.choice([10, 1_000, 20_000]) + data[at:]
    if kind == "line ends":
        return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\r", b"\r\r\n"]))
    return data


def check(base: Base, folder: Path) -> Outcome:
    """Read the file and clean its documents; what is wrong with the results, if anything."""
    path = folder / base.name
    path.write_bytes(base.data)
    counter = ByteCounter()
    file = SourceFile(f"file://{path}", base.name, len(base.data), "")
    source = SourceConfig(path=str(path), **base.source)
    records = list(read_file(file, source, MAX_DOCUMENT_BYTES, counter))
    rows = [
        _row(result, "fuzz", UNKNOWN_GENRE, f"#{result.position}", base.name, source, MAX_DOCUMENT_BYTES)
        for result in records
    ]
    kept = [row for row in rows if "reason" not in row]
    for row in kept:
        cleaned = cleaner().clean({"language": None, **row})
        cleaned.text.encode()
        if "".join(pieces(row["text"])) != row["text"]:
            return Outcome(len(kept), Counter(), "pieces of a text are not the text")
    rejects = Counter(row["reason"] for row in rows if "reason" in row)
    positions = [result.position for result in records]
    problem = None
    if positions != sorted(set(positions)):
        problem = f"positions {positions[:20]}"
    elif not _is_accounted(records, counter, base):
        problem = f"{counter.current_file} of {len(base.data)} bytes were read, and no failure says so"
    return Outcome(len(kept), rejects, problem)


def _is_accounted(records: list[Any], counter: ByteCounter, base: Base) -> bool:
    """Whether every byte was read, or a failure counts those that were not."""
    failures = [result for result in records if isinstance(result, Failure)]
    if any(failure.lost_bytes or failure.reason in ("too_long", "not_a_dump") for failure in failures):
        return True
    is_table = base.name.endswith((".parquet", ".arrow"))
    return is_table or counter.current_file >= len(base.data)


@cache
def cleaner() -> Cleaner:
    """All rules of clean but those of models; documents are tagged, not dropped, so that every rule sees them."""
    rules = {name: {"action": "tag"} for name in Rules.model_fields if name not in MODEL_RULES}
    lines = {name: {"action": "drop"} for name in LineRules.model_fields}
    return Cleaner(CleanConfig.model_validate({"rules": rules, "lines": lines, "unwrapped_genres": ["fuzz"]}))


def _run_child(start: int, stop: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(start, stop):
            base = input_of(seed)
            signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
            began = time.perf_counter()
            outcome = check(base, Path(folder))
            seconds = time.perf_counter() - began
            signal.setitimer(signal.ITIMER_PROF, 0)
            memory = max(map(_peak_memory, [os.getpid(), *extraction.process_ids()]))
            print(
                json.dumps([seed, base.name, outcome.documents, outcome.rejects, outcome.problem, seconds, memory]),
                flush=True,
            )


def _peak_memory(process: int) -> int:
    """Largest resident memory of a process until now, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> int:
    """Run the seeds; the exit status is 1 if any input has a problem."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--child", action="store_true")
    arguments = parser.parse_args()
    seed, stop = arguments.first, arguments.first + arguments.inputs
    if arguments.child:
        _run_child(seed, stop)
        return 0
    documents, rejects, problems, slowest, largest = 0, Counter[str](), [], (0.0, ""), 0
    while seed < stop:
        command = [
            sys.executable,
            "-m",
            "tests.stages.fuzz",
            "--child",
            "--first",
            str(seed),
            "--inputs",
            str(stop - seed),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            for line in child.stdout:
                seed, name, kept, reasons, problem, seconds, memory = json.loads(line)
                documents, slowest, largest = (
                    documents + kept,
                    max(slowest, (seconds, f"{seed} {name}")),
                    max(largest, memory),
                )
                rejects.update(reasons)
                seed += 1
                if problem or memory > MAX_MEMORY:
                    problems.append(f"{seed - 1} {name}: {problem or f'{memory:,} bytes of memory'}")
                    print(problems[-1], flush=True)
            error = child.stderr.read().strip().split("\n")[-1]
        if seed < stop:
            problems.append(f"{seed}: ended with {child.returncode}: {error}")
            print(problems[-1], flush=True)
            seed += 1
    print(f"{arguments.inputs:,} inputs: {documents:,} documents, rejects {dict(rejects.most_common())}")
    print(f"{len(problems)} problems; longest {slowest[0]:.1f} s (seed {slowest[1]}), {largest / 1e6:,.0f} MB at most")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
