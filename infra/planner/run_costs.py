"""A whole training run on a cluster: days, devices' hours, energy, money, failures.

- `RunCosts`, `run_costs`: of a layout; `compute_optimal_tokens`: the tokens that suit a network of that size
- `job_failures`: failures of a job on some devices; `goodput`: share of the time that they and checkpoints leave
- `simulated_run`: the same by simulation
"""

import math
from dataclasses import dataclass

from infra.planner.clusters import Cluster
from infra.planner.failures import Failures, SimulatedRun, daly_interval, expected_goodput, simulate_run
from infra.planner.networks import Network

TOKENS_PER_PARAMETER = 20
"""Compute-optimal (Hoffmann et al. 2022, 2203.15556, table 3: 20 to 22 at 1 to 1,000 billion parameters)."""
CHECKPOINT_SECONDS = 60.0
RESTART_SECONDS = 600.0
"""From a failure to training: detection, a new node, start of all processes, the checkpoint read back."""
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class RunCosts:
    """Costs of a whole run."""

    steps: int
    seconds: float
    """With checkpoints and failures."""
    goodput: float
    device_hours: float
    dollars: float
    kilowatt_hours: float
    model_flops: float
    """Three forward passes per token, without recomputation."""
    utilization: float
    """Model FLOPs over the devices' peak, while training (MFU)."""
    failures: float
    """Expected number."""
    checkpoint_interval_seconds: float
    """Best one."""

    @property
    def days(self) -> float:
        """Wall time in days."""
        return self.seconds / SECONDS_PER_DAY


def run_costs(
    network: Network, cluster: Cluster, devices: int, step_seconds: float, batch_tokens: int, tokens: int
) -> RunCosts:
    """Costs of training on `tokens` tokens.

    Args:
        network: FLOPs per token.
        cluster: prices, power and failures of a device.
        devices: devices that are used.
        step_seconds: time of a step.
        batch_tokens: tokens per step.
        tokens: tokens of the run.
    """
    steps = math.ceil(tokens / batch_tokens)
    training = steps * step_seconds
    failures = job_failures(cluster, devices)
    share, interval = goodput(failures)
    seconds = training / share
    hours = seconds / 3_600
    flops = network.training_flops * steps * batch_tokens
    return RunCosts(
        steps=steps,
        seconds=seconds,
        goodput=share,
        device_hours=hours * devices,
        dollars=hours * devices * cluster.price_per_hour,
        kilowatt_hours=hours * cluster.kilowatts * devices / cluster.devices,
        model_flops=flops,
        utilization=flops / training / (devices * cluster.peak_flops),
        failures=seconds / failures.mtbf,
        checkpoint_interval_seconds=interval,
    )


def goodput(failures: Failures) -> tuple[float, float]:
    """(share of the time that trains, best seconds between checkpoints), by Daly's complete model (2006)."""
    interval = daly_interval(failures)
    return expected_goodput(failures, interval), interval


def simulated_run(cluster: Cluster, devices: int, costs: RunCosts) -> SimulatedRun:
    """The run with failures, simulated; goodput with its interval over seeds."""
    return simulate_run(job_failures(cluster, devices), costs.seconds)


def job_failures(cluster: Cluster, devices: int) -> Failures:
    """Failures of a job on that many devices, and what the planner takes them to cost."""
    return Failures(cluster.mtbf_hours * 3_600 / devices, CHECKPOINT_SECONDS, RESTART_SECONDS)


def compute_optimal_tokens(network: Network) -> float:
    """Tokens at which a training budget is best spent on a network of that many active parameters."""
    return TOKENS_PER_PARAMETER * float(network.active_parameters)
