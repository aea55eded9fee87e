"""MinHash signatures per core: `python -m benchmarks.signatures [--quick] [--data FOLDER] [--peers PYTHON]`.

128 permutations over word 5-grams of 2-4 KB documents; MB of text per CPU second, ours and the peers in
alternation.

- vs_datatrove: ours over datatrove with 64-bit hashes and its fastest word splitter, a regular expression
- vs_rensa: ours over the faster of rensa's R and C MinHash on shingles as strings, split by `str.split`
- vs_datasketch: ours over datasketch's `bulk` with xxh32 on the same shingles
- compile_seconds: one-time cost of the first call in a fresh environment, not included in the ratios
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.common.documents import real_documents
from benchmarks.common.peer_process import add_peers_argument, peer_python, run_peer
from stages.common.minhash import sign

PEER = r"""
import json, re, sys, tempfile, time
request = json.load(sys.stdin)
texts = json.load(open(request["texts"]))

def strings(text):
    words = text.lower().split()
    return [" ".join(words[n:n + 5]) for n in range(max(1, len(words) - 4))]

def datatrove():
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WordTokenizer
    class Regex(WordTokenizer):
        find = staticmethod(re.compile(r"\w+").findall)
        def word_tokenize(self, text): return self.find(text)
        def sent_tokenize(self, text): raise NotImplementedError
        def span_tokenize(self, text): raise NotImplementedError
    config = MinhashConfig(5, 16, 8, hash_config=HashConfig(precision=64))
    step = MinhashDedupSignature(tempfile.mkdtemp(), config, language=Regex())
    return lambda texts: [step.get_signature(step.get_shingles(text)) for text in texts]

def rensa_r():
    from rensa import RMinHash
    return lambda texts: RMinHash.digest_matrix_from_token_sets([strings(text) for text in texts], 128, 1)

def rensa_c():
    from rensa import CMinHash
    return lambda texts: CMinHash.digests_from_token_sets([strings(text) for text in texts], 128, 1)

def datasketch():
    from datasketch import MinHash
    from xxhash import xxh32_intdigest
    return lambda texts: MinHash.bulk(
        [[shingle.encode() for shingle in strings(text)] for text in texts], num_perm=128, hashfunc=xxh32_intdigest)

peers = {"datatrove": datatrove, "rensa R": rensa_r, "rensa C": rensa_c, "datasketch": datasketch}
sign = peers[request["implementation"]]()
sign(texts[:20])
start = time.process_time()
sign(texts)
print(json.dumps(time.process_time() - start))
"""
COMPILE = """
import tempfile, os, time
os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()
import pyarrow as pa
from stages.common.minhash import sign
start = time.process_time()
sign(pa.array(["a b"]), 128, 5)
print(time.process_time() - start)
"""
PEERS = ("datatrove", "rensa R", "rensa C", "datasketch")


def main() -> None:
    """Alternate ours and the peers; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds over 2,000 documents, not seven over 7,500")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that contains corpus/")
    add_peers_argument(parser)
    arguments = parser.parse_args()
    rounds, count = (3, 2000) if arguments.quick else (7, 7500)
    python = peer_python(arguments.peers, ("datatrove", "rensa", "datasketch"))
    texts = [text for _, text in real_documents(arguments.data, count)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *(PEERS if python else ()))}
    compile_seconds = _compile_seconds()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        for _ in range(rounds):
            for name, values in rates.items():
                request = {"texts": file.name, "implementation": name}
                seconds = _ours(texts) if name == "ours" or python is None else run_peer(python, PEER, request)
                values.append(megabytes / seconds)
    table = Table("implementation", "MB per CPU second, median", "lowest", "highest")
    for name, values in rates.items():
        table.add_row(name, *(f"{value:.2f}" for value in (statistics.median(values), min(values), max(values))))
    Console().print(table)
    print(json.dumps({"compile_seconds": round(compile_seconds, 1), **_ratios(rates)}))


def _ours(texts: list[str]) -> float:
    column = pa.chunked_array([texts])
    sign(column.slice(0, 20), 128, 5)
    start = time.process_time()
    sign(column, 128, 5)
    return time.process_time() - start


def _compile_seconds() -> float:
    completed = subprocess.run([sys.executable, "-c", COMPILE], check=True, capture_output=True, text=True)
    return float(completed.stdout)


def _ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the ratios of all rounds."""

    def ratio_to(*peers: str) -> float:
        fastest = [max(values) for values in zip(*(rates[peer] for peer in peers), strict=True)]
        return round(float(statistics.median(a / b for a, b in zip(rates["ours"], fastest, strict=True))), 2)

    ratios = {"megabytes_per_cpu_second": round(statistics.median(rates["ours"]), 1)}
    if "datatrove" in rates:
        ratios |= {
            "vs_datatrove": ratio_to("datatrove"),
            "vs_rensa": ratio_to("rensa R", "rensa C"),
            "vs_datasketch": ratio_to("datasketch"),
        }
    return ratios


if __name__ == "__main__":
    main()
