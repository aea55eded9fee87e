"""What a pass is given besides its config and the network."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from infra.progress import ProgressListener
from infra.store.artifacts import Artifact
from infra.store.filesystem import Folder
from infra.workers.ray_training import TrainingWorkers
from modeling.training.data_parallel import ALONE, WorkerRank
from modeling.transformer import Transformer
from stages.common.token_stream import TokenStream, WindowSampler

THIS_PROCESS = TrainingWorkers("compress")
"""No workers."""


@dataclass(frozen=True)
class PassContext:
    """Data, the teacher, and a place for progress."""

    tokens: Artifact
    teacher: Callable[[], Transformer]
    """Reads the pretrained network, in `eval` mode."""
    seed: int
    """Of the order of data; a pass's own is derived from it and the pass's place."""
    work: Folder
    """Of this pass alone; outlives a killed process."""
    listener: ProgressListener
    workers: TrainingWorkers = THIS_PROCESS
    """That recoveries may use."""
    place: WorkerRank = ALONE
    """Of this process among those that train together."""

    def sampler(self, context_length: int) -> WindowSampler:
        """Training windows (context_length + 1) int64 by position."""
        return WindowSampler(TokenStream(self.tokens, "train"), context_length, self.seed)

    def calibration(self, context_length: int, rows: int) -> Tensor:
        """Training windows to measure activations on, (rows, context_length) int64."""
        return torch.from_numpy(self.sampler(context_length).rows(0, rows)[:, :-1])
