"""Products of the C kernels, compiled for each instruction set that the machine has."""

import ctypes
import platform
from unittest.mock import patch

import pytest
import torch

from modeling import kernels
from modeling.compression.integers import quantize_int8, quantize_packed
from modeling.decoding import native_decoder
from modeling.decoding.native_decoder import NativeDecoder
from modeling.kernels import compilation
from modeling.layers import int8 as int8_layers
from modeling.layers import packed as packed_layers
from modeling.layers.int8 import quantize_rows
from modeling.layers.integer_grid import IntegerGrid
from tests.modeling.layers.test_packed import layer as packed_linear
from tests.modeling.networks import small_network

pytestmark = pytest.mark.skipif(not kernels.available(), reason="needs a C compiler")

FLAGS = {
    "native": (),
    "plain C": ("-DPLAIN_C",),
    "SSE2": ("-march=x86-64",),
    "SSSE3": ("-march=x86-64", "-mssse3"),
    "AVX2": ("-march=x86-64", "-mavx2", "-mfma"),
}


@pytest.fixture(scope="module", params=FLAGS)
def library(request, tmp_path_factory):
    """Library compiled for an instruction set, in use by all callers."""
    if "-march=x86-64" in FLAGS[request.param]:
        capability = torch.backends.cpu.get_cpu_capability()
        if platform.machine() not in ("x86_64", "AMD64") or (request.param == "AVX2" and capability == "DEFAULT"):
            pytest.skip(f"the processor has no {request.param}")
    with patch.object(compilation, "FLAGS", (*compilation.FLAGS, *FLAGS[request.param])):
        path = compilation.build(tmp_path_factory.mktemp("kernels"))
    loaded = compilation._with_signatures(ctypes.CDLL(str(path)))
    with (
        patch.object(kernels, "library", lambda: loaded),
        patch.object(int8_layers, "library", lambda: loaded),
        patch.object(packed_layers, "library", lambda: loaded),
        patch.object(native_decoder, "library", lambda: loaded),
    ):
        yield loaded


def mostly_zero(rows, neurons, zeros):
    torch.manual_seed(0)
    return torch.rand(rows, neurons) * (torch.rand(rows, neurons) >= zeros)


@pytest.mark.parametrize("zeros", [0.0, 0.9, 1.0])
@pytest.mark.parametrize(("rows", "neurons", "width"), [(1, 7, 5), (3, 130, 33), (2, 64, 8)])
def test_the_sparse_product_is_the_dense_one(library, zeros, rows, neurons, width):
    active, weight, bias = mostly_zero(rows, neurons, zeros), torch.randn(neurons, width), torch.randn(width)
    exact = active.double() @ weight.double()
    for given, added in ((bias, bias.double()), (None, 0.0)):
        result = kernels.sparse_product(active, weight, given).double()
        torch.testing.assert_close(result, exact + added, rtol=0, atol=1e-5)


def test_int8_sums_of_the_largest_numbers_do_not_overflow(library):
    """All products are 127 x 127 or its negative: two of them just fit 16 bits, and all of them 32."""
    neurons, width = 301, 40
    up = torch.full((neurons, width), 127, dtype=torch.int8)
    down = torch.randint(0, 2, (neurons, width)).mul(254).sub(127).to(torch.int8)
    ones = torch.ones(neurons), torch.ones(width)
    result = kernels.feed_forward_int8(torch.ones(2, width), (up, ones[0], None), 0.0, (down, ones[1], None))
    active = 127 * width  # each neuron's, quantized to 127 again
    exact = (down.double().sum(0) * active).expand(2, -1)
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=0.1)


def test_inactive_neurons_are_not_read(library):
    active, weight = torch.zeros(1, 8), torch.full((8, 4), torch.nan)
    active[0, 3], weight[3] = 2.0, 1.5
    assert kernels.sparse_product(active, weight, None).tolist() == [[3.0] * 4]


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 5, 3), (2, 70, 33), (3, 1_000, 8)])
def test_int8_sums_are_exact(library, rows, inputs, outputs):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (rows, inputs), generator=generator, dtype=torch.int8)
    codes[:, 0] = 127  # the scale of each row is then 1
    linear = int8_layers.Int8Linear(inputs, outputs, bias=False)
    linear.weight = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
    linear.scale = torch.ones(outputs)
    with patch.object(int8_layers, "ROWS_IN_C", rows):
        assert torch.equal(linear(codes.float()).double(), codes.double() @ linear.weight.double().T)


def test_int8_codes_are_those_of_torch(library):
    """A unit weight returns the quantized activations."""
    hidden = torch.randn(4, 40) * torch.tensor([[1e-3], [1.0], [1e3], [0.0]])
    linear = int8_layers.Int8Linear(40, 40, bias=False)
    linear.weight, linear.scale = torch.eye(40).to(torch.int8), torch.ones(40)
    codes, scales = quantize_rows(hidden)
    with patch.object(int8_layers, "ROWS_IN_C", 4):
        assert torch.equal(linear(hidden), codes * scales)


@pytest.mark.parametrize("grid", [IntegerGrid(4, 32), IntegerGrid(2, 64)], ids=["int4", "int2"])
def test_packed_products_are_those_of_torch(library, grid):
    linear, hidden = packed_linear(torch.randn(41, 200), torch.randn(41), grid), torch.randn(3, 200)
    with patch.object(packed_layers, "ROWS_IN_C", 3):
        result = linear(hidden)
    with patch.object(packed_layers, "ROWS_IN_C", 0):
        torch.testing.assert_close(result, linear(hidden), rtol=1e-5, atol=1e-4)


NETWORKS = {
    "float": lambda: small_network(),
    "int8": lambda: quantize_int8(small_network()),
    "int4": lambda: quantize_packed(small_network(), IntegerGrid(4, 32), IntegerGrid(4, 32)),
    "int2": lambda: quantize_packed(small_network(), IntegerGrid(2, 32), IntegerGrid(4, 32)),
}


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_the_native_decoder_are_those_of_torch(library, name):
    model = NETWORKS[name]().eval()
    native = NativeDecoder.create(model, model.new_cache(1))
    logits = native.predict([[3, 1, 4, 1, 5]])[0]
    with patch.object(int8_layers, "ROWS_IN_C", 0), patch.object(packed_layers, "ROWS_IN_C", 0):
        expected = model(torch.tensor([[3, 1, 4, 1, 5]]))[0, -1]
    # A different summation order may round an integer to its neighbor.
    assert float((logits - expected).norm() / expected.norm()) < (1e-5 if name == "float" else 0.02)
