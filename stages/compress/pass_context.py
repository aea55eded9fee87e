"""Context of a pass besides its config and the network: data, teacher, precision, workers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from infra.progress import ProgressListener
from infra.store.artifacts import Artifact
from infra.store.filesystem import Folder
from infra.workers.ray_training import TrainingWorkers
from modeling.training.data_parallel import ALONE, WorkerRank
from modeling.training.kinds import Precision
from modeling.transformer import Transformer
from stages.common.token_stream import TokenStream, WindowSampler

THIS_PROCESS = TrainingWorkers("compress")
"""No workers."""


@dataclass(frozen=True)
class PassContext:
    """Data, the teacher, the folder for progress, and how recoveries are trained."""

    tokens: Artifact
    teacher: Callable[[], Transformer]
    """Reads the pretrained network, in `eval` mode."""
    seed: int
    """Seed of the data order; the config's seed plus the index of the pass."""
    work: Folder
    """Progress of this pass only; outlives a killed process."""
    listener: ProgressListener
    precision: Precision
    """Precision of recovery training, the same on all workers, whatever their processors are best at."""
    workers: TrainingWorkers = THIS_PROCESS
    """Workers that recoveries may use."""
    worker: WorkerRank = ALONE
    """Rank of this process among those that train together."""

    def sampler(self, context_length: int) -> WindowSampler:
        """Training windows (context_length + 1) int64 by position."""
        return WindowSampler(TokenStream(self.tokens, "train"), context_length, self.seed)

    def calibration(self, context_length: int, rows: int) -> Tensor:
        """Training windows to measure activations on, (rows, context_length) int64."""
        return torch.from_numpy(self.sampler(context_length).rows(0, rows)[:, :-1])
