import pytest

from data_schemas.errors import ConfigError
from infra.planner.accelerators import ACCELERATORS, find_accelerator
from infra.planner.clusters import read_cluster


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A100-80GB (Selene)", "A100-80GB"), ("a100_40gb (A100 40GB with RoCE)", "A100-40GB"),
        ("DGX A100", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"), ("8x H100", "H100"), ("nvidia h100 80gb hbm3", "H100"),
        ("H800", "H800"),
        ("H200-141GB, 4 per node", "H200"), ("GB200 NVL72", "GB200"), ("B200", "B200"), ("TPU v4", "TPU-v4"),
        ("Tesla V100-SXM2-16GB", "V100"), ("AMD Instinct MI300X", "MI300X"), ("Ampere (A100-80GB)", "A100-80GB"),
        ("cpu node", "CPU-96"), ("A100-PCIE-40GB", "A100-PCIe"), ("H100 PCIe", "H100-PCIe"),
        ("L4", "L4"), ("GH200", "H200"),
        ("TPU v5e", "TPU-v5e"), ("TPU v5p-512", "TPU-v5p"), ("Google TPUv4", "TPU-v4"), ("NVIDIA L40S", "L40S"),
        ("A800 80GB", "A800"), ("H20", "H20"), ("Intel Gaudi 2", "Gaudi2"), ("trn2.48xlarge", "Trainium2"),
        ("40GB A100", "A100-40GB"), ("ND A100 v4", "A100-80GB"), ("Cloud TPU v3", "TPU-v3"),
        ("TPU v5 lite", "TPU-v5e"), ("2x Intel Xeon 8480", "CPU-96"), ("L4 24GB", "L4"), ("a10080gb", "A100-80GB"),
        ("A1000", None), ("ND MI355X v4", None),
        ("Cerebras CS-3", None), ("", None), ("a quantum computer", None), ("GPU-H1000", None),
    ],
)  # fmt: skip
def test_accelerators_are_found_in_any_spelling(text, name):
    found = find_accelerator(text)
    assert (found.name if found else None) == name


def test_every_accelerator_is_found_by_its_name_and_consistent():
    for accelerator in ACCELERATORS:
        assert find_accelerator(accelerator.name) == accelerator
        assert accelerator.sustained_flops < accelerator.peak_flops
        assert accelerator.network_bandwidth <= accelerator.link_bandwidth < accelerator.memory_bandwidth
        assert accelerator.source


@pytest.mark.parametrize(
    ("text", "gib"),
    [("Tesla V100-SXM2-16GB", 16), ("V100", 32), ("A100-SXM-64GB", 64), ("DGX A100 640GB", 80), ("GH200 96GB", 96),
     ("A100 80GB with 1600 Gbps", 80), ("A100-PCIE-40GB", 40)],
)  # fmt: skip
def test_a_version_of_less_memory_is_told_by_its_name(text, gib):
    assert find_accelerator(text).memory_bytes == gib * 2**30


def test_a_power_limit_slows_products_by_its_cube_root():
    limited, whole = find_accelerator("H100 SXM, 350 W"), find_accelerator("H100")
    assert limited.sustained_flops == pytest.approx(whole.sustained_flops * 0.5 ** (1 / 3))
    assert limited.memory_bandwidth == whole.memory_bandwidth


@pytest.mark.parametrize("text", ["512xH100", "512 x h100", "H100:512", "H100 x 512", "512*NVIDIA H100 80GB"])
def test_a_cluster_by_name(text):
    cluster = read_cluster(text)
    assert (cluster.device, cluster.devices, cluster.node_devices) == ("H100", 512, 8)


def test_a_file_replaces_figures_of_the_table_and_describes_other_devices(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text("{device: A100 80GB, devices: 16, network_bandwidth: 1.0e+10, price_per_hour: 0.9}")
    cluster = read_cluster(str(path))
    assert (cluster.name, cluster.network_bandwidth, cluster.price_per_hour) == ("ours", 1e10, 0.9)
    assert cluster.memory_bytes == 80 * 2**30


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("H100", "how many H100"), ("0xH100", "at least 1"), ("8xQ9", "no accelerator is called 'Q9'"),
        ("nonsense", "expected a number of devices"), ("missing.yaml", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_cluster_is_named(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_cluster(text)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("device: own\ndevices: 8", "node_devices, memory_bytes, .*missing.*not in the table"),
        ("devices: 8", "device missing"), ("- 1", "not a mapping"), ("{device: H100}", "devices missing"),
        ("{device: H100, devices: 0}", "devices|missing"),
        ("{device: H100, devices: 8, bandwith: 1}", "unknown field 'bandwith'"),
        ("{device: H100, devices: 8, memory_bytes: -1}", "memory_bytes: .*found -1"), ("{a: [", "cannot be read"),
        ("{device: H100, devices: many}", "devices: .*found 'many'"),
        ("{device: H100, devices: 1.5}", "devices: .*1.5"),
        ("{device: H100, devices: 8, price_per_hour: .nan}", "price_per_hour"),
        ("{device: H100, devices: 8, 1: 2}", "1"),
        ("{device: H100, devices: 8, memory_bytes: .inf}", "memory_bytes"),
        ("{device: H100, devices: null}", "devices"),
        ("{device: H100, devices: true}", "devices: expected number of devices: a whole number, found True"),
        ("{device: H100, devices: 1e9}", "devices: .*whole number, found '1e9'"),
        ("{device: H100, devices: 99999999999999999999}", "devices: .*1e\\+07 or less"),
        ("{device: H100, devices: 8, price_per_hour: -2}", "price_per_hour: .*dollars.*0 or more, found -2"),
        ("{device: H100, devices: 8, mtbf_hours: 0}", "mtbf_hours: .*0.001 or more, found 0"),
        ("{device: H100, devices: 8, memory_bytes: 80}", "memory_bytes: expected bytes .*1e\\+08 or more, found 80"),
        ("{device: H100, devices: 8, network_bandwidth: 50}", "network_bandwidth: expected bytes .*found 50"),
        ("{device: H100, devices: 8, sustained_flops: 5.0e+15}", "sustained_flops is 5e.15, more than peak_flops, 9.8"),
        ("{device: H100, devices: 8, bandwidth: 1, price: 3}", "unknown fields 'bandwidth', 'price'; accepted"),
        ("cluster: {device: H100}", "unknown field 'cluster'"), ("{device: H100, devices: !!int x}", "cannot be read"),
        ("[" * 5_000, "cannot be read"), ("{device: H100, devices: !!timestamp x}", "cannot be read"),
        ("{device: H100, devices: 8, link_bandwidth: 900 GB/s}", "link_bandwidth: .*'900 GB/s'; write 9e.11"),
        ("{device: H100, devices: 8, network_bandwidth: 400 Gbit/s}", "network_bandwidth: .*; write 5e.10"),
        ("{device: H100, devices: 8, memory_bytes: 80 GiB}", "memory_bytes: .*'80 GiB'; write 8.589934592e.10"),
        ("{device: H100, devices: 8, price_per_hour: '1,90'}", "price_per_hour: .*found '1,90'$"),
        ("{device: H100, devices: 8, mtbf_hours: 30 days}", "mtbf_hours: .*'30 days'; write 720"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_field(tmp_path, content, sentence):
    path = tmp_path / "cluster.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        read_cluster(str(path))
