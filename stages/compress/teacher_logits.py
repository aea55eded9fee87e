"""A teacher's predictions computed once and stored as Arrow files: the top k of each token and the sum of the others.

- `store_logits`: runs the teacher over training windows; files that an earlier process wrote are kept
- `StoredLogits`: reads predictions by position, or by the tokens of a window

A file holds `FILE_ROWS` windows, one per row: `tokens` and `log_probabilities`, each context_length x k in one list,
and `tail`, context_length. Ids take 2 bytes if the vocabulary is small enough, log-probabilities 2 (float16: off by
0.4 % of the probability at e^-10, by less if it is larger). They are at the temperature of the comparison, because the
tail at another temperature cannot be computed from them.
"""

import hashlib
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import torch
from torch import Tensor

from data_schemas.errors import ContractError
from infra.progress import ProgressListener
from infra.store.artifact_writer import table_bytes
from infra.store.filesystem import Folder
from modeling.distillation.teacher_predictions import TopPredictions
from modeling.finite_weights import check_finite
from modeling.loss.logit_tiles import softmax_ready
from modeling.transformer import Transformer
from stages.common.token_stream import WindowSampler

FILE_ROWS = 64
TEACHER_ROWS = 8
"""Windows per forward pass of the teacher."""
OPEN_FILES = 8


@dataclass(frozen=True)
class LogitSettings:
    """Everything besides the windows that decides the bytes; stored in each file."""

    top_k: int
    temperature: float
    context_length: int
    vocabulary_size: int
    teacher: str
    """Digest of its weights."""

    @classmethod
    def of(cls, teacher: Transformer, top_k: int, temperature: float, context_length: int) -> "LogitSettings":
        """Settings for this teacher; `top_k` is limited to its vocabulary."""
        vocabulary = teacher.config.vocabulary_size
        return cls(min(top_k, vocabulary), temperature, context_length, vocabulary, _weights_digest(teacher))

    @property
    def bytes_per_token(self) -> int:
        """Bytes on disk per token."""
        return self.top_k * (2 if self.vocabulary_size <= 2**16 else 4) + 2 * self.top_k + 2

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """Metadata of the file's schema."""
        return {b"headrace": json.dumps(asdict(self), sort_keys=True).encode()}


def store_logits(
    teacher: Transformer,
    sampler: WindowSampler,
    rows: int,
    settings: LogitSettings,
    folder: Folder,
    listener: ProgressListener,
) -> None:
    """Write the predictions for the first `rows` windows of the sampler, file by file, each atomically.

    Args:
        teacher: any network, float or int8.
        sampler: the windows, as the recovery will read them.
        rows: number of windows.
        settings: from `LogitSettings.of`.
        folder: existing files with the same settings are kept, others replaced.
        listener: notified after each file.
    """
    for first in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - first)
        if _is_stored(folder, first, count, settings):
            continue
        windows = torch.from_numpy(sampler.rows(first, count))[:, :-1]
        parts = [_predictions(teacher, part, settings) for part in torch.split(windows, TEACHER_ROWS)]
        table = _table([np.concatenate(column) for column in zip(*parts, strict=True)], settings)
        folder.write(_name(first), table_bytes(_name(first), table))
        listener.advanced("teacher's predictions", first + count, rows, f"{settings.bytes_per_token} bytes per token")


class StoredLogits:
    """The files of `store_logits`; a `PredictionSource`."""

    def __init__(self, folder: Folder, sampler: WindowSampler, rows: int, settings: LogitSettings) -> None:
        """Index the windows by a hash of their tokens, as training passes on tokens and not positions."""
        self._folder, self._settings = folder, settings
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._positions = {_digest(sampler.rows(row, 1)[0, :-1]): row for row in range(rows)}

    def __call__(self, tokens: Tensor) -> TopPredictions:
        """Predictions of the next token after each of (batch, context_length) int64, on their device.

        Raises:
            ContractError: if a window is not stored.
        """
        positions = [self._positions.get(_digest(row)) for row in tokens.cpu().numpy()]
        if None in positions:
            raise ContractError(
                f"a training window is not among the {len(self._positions)} whose predictions are stored; "
                "store as many as the recovery reads, or use logits: streamed"
            )
        return _concatenated([self._row(position) for position in positions if position is not None], tokens.device)

    def rows(self, first: int, count: int) -> TopPredictions:
        """Predictions of the windows from position `first`, concatenated: (count x context_length) tokens."""
        return _concatenated([self._row(position) for position in range(first, first + count)], torch.device("cpu"))

    def _row(self, position: int) -> list[npt.NDArray[np.generic]]:
        table, row = self._table(position // FILE_ROWS * FILE_ROWS), position % FILE_ROWS
        k = self._settings.top_k
        tokens, logarithms, tail = (table.column(name)[row].values.to_numpy() for name in table.column_names)
        return [tokens.reshape(-1, k), logarithms.reshape(-1, k), tail]

    def _table(self, first: int) -> pa.Table:
        if first not in self._tables:
            self._tables[first] = _open(self._folder, first)
            if len(self._tables) > OPEN_FILES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(first)
        return self._tables[first]


def _concatenated(rows: list[list[npt.NDArray[np.generic]]], device: torch.device) -> TopPredictions:
    tokens, logarithms, tail = (np.concatenate(column) for column in zip(*rows, strict=True))
    top = torch.from_numpy(logarithms.astype(np.float32))
    others = torch.from_numpy(tail.astype(np.float32))
    # After rounding to float16 the probabilities do not quite sum to 1.
    total = torch.cat([top, others[:, None]], 1).logsumexp(1)
    ids = torch.from_numpy(tokens.astype(np.int64))
    return TopPredictions(ids.to(device), (top - total[:, None]).to(device), (others - total).to(device))


@torch.inference_mode()
def _predictions(teacher: Transformer, tokens: Tensor, settings: LogitSettings) -> list[npt.NDArray[np.generic]]:
    """ids (rows, context x k), log-probabilities (rows, context x k), tails (rows, context)."""
    hidden = teacher.hidden_states(tokens.to(teacher.final_norm.weight.device))
    ids, top_logarithms, tails = [], [], []
    for row in hidden:
        logarithms = softmax_ready(teacher.head(row)).div(settings.temperature).log_softmax(-1)
        top = logarithms.topk(settings.top_k)
        ids.append(top.indices.flatten())
        top_logarithms.append(top.values.flatten())
        tails.append(logarithms.scatter(1, top.indices, -torch.inf).logsumexp(-1))
    check_finite({"predictions": torch.stack(top_logarithms)}, "the teacher")
    id_type = np.uint16 if settings.vocabulary_size <= 2**16 else np.uint32
    return [
        torch.stack(ids).cpu().numpy().astype(id_type),
        torch.stack(top_logarithms).cpu().numpy().astype(np.float16),
        torch.stack(tails).cpu().numpy().astype(np.float16),
    ]


def _table(columns: list[npt.NDArray[np.generic]], settings: LogitSettings) -> pa.Table:
    arrays = [pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1]) for column in columns]
    table = pa.table(dict(zip(("tokens", "log_probabilities", "tail"), arrays, strict=True)))
    return table.replace_schema_metadata(settings.metadata)


def _is_stored(folder: Folder, first: int, count: int, settings: LogitSettings) -> bool:
    if not folder.exists(_name(first)):
        return False
    table = _open(folder, first)
    return bool(table.schema.metadata == settings.metadata and len(table) == count)


def _open(folder: Folder, first: int) -> pa.Table:
    """Read a file, memory-mapped if the disk is local."""
    if folder.is_local:
        with pa.memory_map(str(folder.local_path(_name(first)))) as source:
            return pa.ipc.open_file(source).read_all()
    return pa.ipc.open_file(pa.py_buffer(folder.read(_name(first)))).read_all()


def _name(first: int) -> str:
    return f"teacher-logits/{first:09d}.arrow"


def _digest(tokens: npt.NDArray[np.int64]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(tokens).tobytes(), digest_size=16).digest()


def _weights_digest(teacher: Transformer) -> str:
    digest = hashlib.sha256()
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
