"""Pipeline schedules, simulated operation by operation: time of a step, idle share, activations held.

- `Costs`: seconds of a micro-batch on a device; `ORDERS`: each device's operations by schedule
- `simulate`: `Timeline` of a step; `schedule_seconds`: its time, of any number of micro-batches
- `bubble_seconds`: idle time by closed formulas

A device holds `virtual` chunks of consecutive layers: chunk c of device d is the pipeline's stage c x devices + d. An
operation starts when its device is free and its input has arrived; sending occupies no device. Schedules:

- gpipe: all forward passes, then all backward passes (Huang et al. 2019, 1811.06965)
- 1f1b: one forward, one backward, after a warm-up (Narayanan et al. 2021, 2006.09503)
- interleaved: 1f1b with several chunks per device (Narayanan et al. 2021, 2104.04473)
- zero-bubble: ZB-H1; gradients of weights apart from those of inputs, and later (Qi et al. 2023, 2401.10241)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["gpipe", "1f1b", "interleaved", "zero-bubble"]
Kind = Literal["forward", "backward", "inputs", "weights"]
"""A `backward` pass is `inputs` and `weights` in one."""
ROUNDS = 3
"""Rounds of as many micro-batches as devices, after which each further one takes equally long."""


@dataclass(frozen=True)
class Operation:
    """Work of a device on a micro-batch."""

    kind: Kind
    micro_batch: int
    chunk: int = 0


@dataclass(frozen=True)
class Costs:
    """Seconds of a micro-batch on a device, over all its chunks, and of sending between devices."""

    forward: float
    inputs: float
    weights: float
    send: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of work on a micro-batch."""
        return self.forward + self.inputs + self.weights

    def seconds(self, kind: Kind) -> float:
        """Seconds of an operation over all chunks."""
        return {
            "forward": self.forward,
            "backward": self.inputs + self.weights,
            "inputs": self.inputs,
            "weights": self.weights,
        }[kind]


Span = tuple[Operation, float, float]
"""Operation, its start and its end in seconds."""


@dataclass(frozen=True)
class Timeline:
    """Simulated step."""

    devices: list[list[Span]]
    """Operations of each device in their order."""

    @property
    def seconds(self) -> float:
        """Time from the first start to the last end."""
        return max(spans[-1][2] for spans in self.devices)

    @property
    def idle_share(self) -> float:
        """Share of all devices' time without work."""
        busy = sum(end - start for spans in self.devices for _, start, end in spans)
        return 1 - busy / (self.seconds * len(self.devices))

    def held(self, device: int) -> int:
        """Micro-batches of a chunk whose activations a device holds at its fullest, until their weights' gradients."""
        changes = {"forward": 1, "backward": -1, "inputs": 0, "weights": -1}
        now = peak = 0
        for operation, *_ in self.devices[device]:
            now += changes[operation.kind]
            peak = max(peak, now)
        return peak


def simulate(schedule: Schedule, costs: Costs, devices: int, micro_batches: int, virtual: int = 1) -> Timeline:
    """Timeline of a step, every operation as early as its device, its input and the order allow.

    Args:
        schedule: order of the operations.
        costs: seconds per micro-batch and device.
        devices: pipeline devices.
        micro_batches: of the step; a multiple of `devices` if interleaved.
        virtual: chunks per device; 1 unless interleaved.
    """
    assert schedule == "interleaved" or virtual == 1
    assert schedule != "interleaved" or micro_batches % devices == 0
    orders = [list(ORDERS[schedule](device, devices, micro_batches, virtual)) for device in range(devices)]
    spans: list[list[Span]] = [[] for _ in range(devices)]
    arrivals: dict[tuple[bool, int, int], float] = {}
    runnable = list(range(devices))
    while runnable:
        device = runnable.pop()
        while len(spans[device]) < len(orders[device]):
            operation = orders[device][len(spans[device])]
            stage = operation.chunk * devices + device
            arrival = _arrival(operation, stage, devices * virtual, arrivals)
            if arrival is None:
                break
            start = max(arrival, spans[device][-1][2] if spans[device] else 0.0)
            end = start + costs.seconds(operation.kind) / virtual
            spans[device].append((operation, start, end))
            if operation.kind != "weights":
                forward = operation.kind == "forward"
                neighbor = (device + (1 if forward else -1)) % devices
                arrivals[forward, operation.micro_batch, stage] = end + (costs.send if neighbor != device else 0.0)
                runnable.append(neighbor)
    assert all(len(done) == len(order) for done, order in zip(spans, orders, strict=True)), "the schedule deadlocks"
    return Timeline(spans)


def _arrival(
    operation: Operation, stage: int, stages: int, arrivals: dict[tuple[bool, int, int], float]
) -> float | None:
    """Time at which the input has arrived; None if it is not sent yet. The order itself holds back `weights`."""
    if operation.kind == "forward":
        return arrivals.get((True, operation.micro_batch, stage - 1)) if stage else 0.0
    if operation.kind == "weights" or stage == stages - 1:
        return 0.0
    return arrivals.get((False, operation.micro_batch, stage + 1))


def _gpipe(device: int, devices: int, micro_batches: int, virtual: int) -> Iterator[Operation]:
    yield from (Operation("forward", index) for index in range(micro_batches))
    yield from (Operation("backward", index) for index in range(micro_batches))


def _one_forward_one_backward(device: int, devices: int, micro_batches: int, virtual: int) -> Iterator[Operation]:
    """Megatron's order: groups of `devices` micro-batches pass each chunk in turn."""
    total, group = micro_batches * virtual, devices * virtual
    warm_up = devices - 1 - device if virtual == 1 else 2 * (devices - 1 - device) + (virtual - 1) * devices
    warm_up = min(warm_up, total)

    def operation(kind: Kind, index: int) -> Operation:
        chunk = index % group // devices
        micro_batch = index // group * devices + index % devices
        return Operation(kind, micro_batch, chunk if kind == "forward" else virtual - 1 - chunk)

    yield from (operation("forward", index) for index in range(warm_up))
    for index in range(total):
        if index + warm_up < total:
            yield operation("forward", index + warm_up)
        yield operation("backward", index)


def _zero_bubble(device: int, devices: int, micro_batches: int, virtual: int) -> Iterator[Operation]:
    """1F1B in which device d computes the gradients of weights d micro-batches later, so that all hold `devices`."""
    for operation in _one_forward_one_backward(device, devices, micro_batches, 1):
        if operation.kind == "forward":
            yield operation
            continue
        yield Operation("inputs", operation.micro_batch)
        if operation.micro_batch >= device:
            yield Operation("weights", operation.micro_batch - device)
    yield from (Operation("weights", index) for index in range(max(micro_batches - device, 0), micro_batches))


ORDERS: dict[Schedule, Callable[[int, int, int, int], Iterator[Operation]]] = {
    "gpipe": _gpipe,
    "1f1b": _one_forward_one_backward,
    "interleaved": _one_forward_one_backward,
    "zero-bubble": _zero_bubble,
}
"""(device, devices, micro-batches, virtual) -> operations of the device."""


def bubble_seconds(schedule: Schedule, costs: Costs, devices: int, virtual: int = 1) -> float:
    """Idle seconds of a device in a step if sending takes no time, as published.

    ZB-H1's (p - 1)(F + B - W) needs gradients of weights that take no longer than either other pass: the first device
    waits (p - 1) B for its first gradient and the last (p - 1) F for its first input, whatever W hides.
    """
    if schedule == "zero-bubble":
        published = costs.forward + costs.inputs - costs.weights
        return (devices - 1) * max(published, costs.forward, costs.inputs)
    return (devices - 1) * costs.total / virtual


def schedule_seconds(schedule: Schedule, costs: Costs, devices: int, micro_batches: int, virtual: int = 1) -> float:
    """Seconds of a step, simulated; rounds of `devices` micro-batches after the third take as long as the third."""
    rounds, rest = divmod(micro_batches, devices)
    if rounds <= ROUNDS:
        return simulate(schedule, costs, devices, micro_batches, virtual).seconds
    few = ROUNDS * devices + rest
    longer, shorter = (simulate(schedule, costs, devices, few - less, virtual).seconds for less in (0, devices))
    return longer + (rounds - ROUNDS) * (longer - shorter)
