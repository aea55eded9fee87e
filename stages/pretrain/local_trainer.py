"""Ray's `TorchTrainer`, without a callback that only helps on clusters."""

import os
from typing import Any


def trainer_class() -> Any:
    """`TorchTrainer`; on a Ray that this process started, without the placement group cleaner.

    The cleaner frees resources after a dead controller, which on one machine dies with its driver. It asks the
    dashboard every second, which is off here, fills the log with its failures and has a 12 s stop time-out.
    """
    from ray.train.torch import TorchTrainer

    if "RAY_ADDRESS" in os.environ:
        return TorchTrainer

    class LocalTorchTrainer(TorchTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if type(one).__name__ != "PlacementGroupCleanerCallback"]

    return LocalTorchTrainer
