"""What `precision: auto` becomes, on devices that are only described."""

import pytest

from data_schemas.errors import EnvironmentProblem
from infra import precision
from infra.precision import AutoPrecision, Gpu, Processor, ask_cluster, best_precision, devices_of, nodes_to_ask
from infra.workers import ray_training
from infra.workers.ray_session import close_ray, ensure_ray

H100, A100, L4 = Gpu("NVIDIA H100 80GB HBM3", 9), Gpu("NVIDIA A100-SXM4-40GB", 8), Gpu("NVIDIA L4", 8)
V100, T4, P100 = Gpu("Tesla V100-SXM2-16GB", 7), Gpu("Tesla T4", 7), Gpu("Tesla P100-PCIE-16GB", 6)
ZEN4, ZEN1 = Processor(True), Processor(False)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([A100], "bf16"), ([H100], "bf16"), ([L4, H100], "bf16"),
        ([V100], "fp16"), ([T4], "fp16"), ([P100], "fp32"),
        ([A100, V100], "fp16"), ([V100, A100, H100], "fp16"), ([A100, P100], "fp32"),
        ([ZEN4], "bf16"), ([ZEN1], "fp32"), ([ZEN4, ZEN1], "fp32"),
    ],
)  # fmt: skip
def test_auto_is_the_best_precision_that_all_devices_multiply_fast(devices, expected):
    assert best_precision(devices) == expected


@pytest.mark.parametrize("processor", [ZEN4, ZEN1])
@pytest.mark.parametrize(
    ("gpus", "device", "workers"),
    [((), None, None), ((A100,), "bf16", "bf16"), ((V100,), "fp16", "fp16"), ((A100, V100), "bf16", "fp16")],
)
def test_the_device_that_computes_decides_and_not_the_processor_beside_it(
    monkeypatch, processor, gpus, device, workers
):
    of_processor = "bf16" if processor.has_fast_bf16 else "fp32"
    monkeypatch.setattr("infra.hardware.has_fast_bf16", lambda: processor.has_fast_bf16)
    monkeypatch.setattr(precision, "local_gpus", lambda: gpus)
    found = {where: AutoPrecision({})(where) for where in ("processor", "device", "workers")}
    assert found == {"processor": of_processor, "device": device or of_processor, "workers": workers or of_processor}


def test_only_a_run_on_workers_asks_the_cluster_and_once(monkeypatch):
    asked = []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(precision, "local_gpus", lambda: (V100,))
    monkeypatch.setattr(precision, "ask_cluster", lambda: asked.append(1) or [A100])
    auto = AutoPrecision({"processor": "fp32"})
    assert (auto("processor"), auto("device"), asked) == ("fp32", "fp16", [])
    assert (auto("workers"), auto("workers"), asked) == ("bf16", "bf16", [1])
    assert auto.known == {"processor": "fp32", "device": "fp16", "workers": "bf16"}
    assert AutoPrecision(auto.known)("workers") == "bf16" and asked == [1], "a run that continues keeps it"


def node(name: str, alive: bool = True, **resources: float) -> dict:
    named = {key.replace("_type_", "_type:"): value for key, value in resources.items()}
    return {"NodeID": name, "Alive": alive, "Resources": named}


def test_one_node_of_each_kind_of_accelerator_is_asked():
    nodes = [
        node("head", CPU=4), node("dead", alive=False, GPU=8, accelerator_type_H100=1), node("no cpus", CPU=0),
        node("a", CPU=64, GPU=8, accelerator_type_A100=1), node("b", CPU=64, GPU=8, accelerator_type_A100=1),
        node("c", CPU=8, GPU=4, accelerator_type_V100=1), node("unknown 1", GPU=1), node("unknown 2", GPU=1),
    ]  # fmt: skip
    assert [node["NodeID"] for node in nodes_to_ask(nodes, "GPU")] == ["a", "c", "unknown 1", "unknown 2"]
    assert [node["NodeID"] for node in nodes_to_ask(nodes, "CPU")] == ["head", "a", "b", "c"]


FAKE_TORCH = """
import os
class cuda:
    is_available = staticmethod(lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != "")
    device_count = staticmethod(lambda: 2)
    get_device_name = staticmethod(lambda index: ["NVIDIA A100-SXM4-40GB", "Tesla V100-SXM2-16GB"][index])
    get_device_capability = staticmethod(lambda index: [(8, 0), (7, 0)][index])
print("a banner of a library")
"""


def test_gpus_are_listed_by_a_process_of_its_own(monkeypatch, tmp_path):
    listed = precision.local_gpus.__wrapped__
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(precision, "GPU_FILES", (str(tmp_path / "absent"),))
    monkeypatch.setattr("sys.platform", "linux")
    assert listed() == (), "without the files of a driver torch is not imported"
    monkeypatch.setattr(precision, "GPU_FILES", (str(tmp_path),))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # Ray's, in a task that reserves no GPU
    assert listed() == (A100, V100)
    (tmp_path / "torch.py").write_text("raise ImportError")
    assert listed() == ()


@pytest.mark.parametrize(
    ("address", "cluster", "driver", "expected"),
    [
        ("10.0.0.1:6379", True, False, True),  # a laptop that submits to GPUs
        ("10.0.0.1:6379", False, True, False),  # a workstation that submits to processors
        (None, True, True, True),
        (None, True, False, False),  # a GPU beside a build of torch for processors
        (None, False, True, False),
    ],
)
def test_the_cluster_says_whether_workers_have_gpus(monkeypatch, address, cluster, driver, expected):
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray_training, "cluster_has_gpus", lambda: cluster)
    monkeypatch.setattr("torch.cuda.is_available", lambda: driver)
    assert ray_training.workers_have_gpus() is expected


@pytest.mark.slow
def test_nodes_are_asked_by_a_task_and_gpus_that_torch_cannot_use_are_refused(monkeypatch):
    import ray

    try:
        ensure_ray()
        monkeypatch.setenv("RAY_ADDRESS", "a-cluster:6379")  # connected already
        assert devices_of("workers") == [Processor(precision.hardware.has_fast_bf16())]
        close_ray()
        monkeypatch.delenv("RAY_ADDRESS")
        ray.init(num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
        monkeypatch.setenv("RAY_ADDRESS", "a-cluster:6379")
        with pytest.raises(EnvironmentProblem, match=r"offers 2 GPUs to Ray, but torch can use none there; install"):
            ask_cluster()
    finally:
        close_ray()
