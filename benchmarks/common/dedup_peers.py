"""Complete dedup jobs of the peers, as scripts for another interpreter.

Each reads `{"documents": FOLDER of Parquet files, "work": FOLDER}`, writes the survivors to `work` and prints
`{"seconds": CPU seconds, "kept": ids}`.
"""

DATATROVE = r"""
import glob, json, os, re, sys, time
from loguru import logger
logger.remove()
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer
import pyarrow.parquet as pq

class Regex(WordTokenizer):
    find = staticmethod(re.compile(r"\w+").findall)
    def word_tokenize(self, text): return self.find(text)
    def sent_tokenize(self, text): raise NotImplementedError
    def span_tokenize(self, text): raise NotImplementedError

request = json.load(sys.stdin)
work, config = request["work"], MinhashConfig(5, 16, 8, hash_config=HashConfig(precision=64))

def run(name, tasks, *steps):
    LocalPipelineExecutor(list(steps), tasks=tasks, workers=1, logging_dir=f"{work}/logs/{name}").run()

files = len(glob.glob(f"{request['documents']}/*.parquet"))
def reader(): return ParquetReader(request["documents"])
start = os.times()
run("signatures", files, reader(), MinhashDedupSignature(f"{work}/signatures", config, language=Regex()))
run("buckets", 16, MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config))
run("clusters", 1, MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config))
run("filter", files, reader(), MinhashDedupFilter(f"{work}/remove"), ParquetWriter(f"{work}/kept"))
end = os.times()
seconds = sum(end[:4]) - sum(start[:4])
kept = [name for path in glob.glob(f"{work}/kept/*.parquet") for name in pq.read_table(path)["id"].to_pylist()]
print(json.dumps({"seconds": seconds, "kept": kept}))
"""

DATASKETCH = r"""
import glob, json, sys, time
import pyarrow as pa, pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH
from xxhash import xxh32_intdigest

request = json.load(sys.stdin)

def shingles(text):
    words = text.lower().split()
    return [" ".join(words[n:n + 5]).encode() for n in range(max(1, len(words) - 4))]

start = time.process_time()
index, kept = MinHashLSH(num_perm=128, params=(16, 8)), []
for path in sorted(glob.glob(f"{request['documents']}/*.parquet")):
    table = pq.read_table(path)
    sketches = MinHash.bulk(
        [shingles(text) for text in table["text"].to_pylist()], num_perm=128, hashfunc=xxh32_intdigest)
    is_new = []
    for name, sketch in zip(table["id"].to_pylist(), sketches):
        is_new.append(not index.query(sketch))
        index.insert(name, sketch)
    survivors = table.filter(pa.array(is_new))
    pq.write_table(survivors, f"{request['work']}/{len(kept)}.parquet", compression="zstd")
    kept += survivors["id"].to_pylist()
print(json.dumps({"seconds": time.process_time() - start, "kept": kept}))
"""
