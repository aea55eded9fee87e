"""Build an ONNX graph: operators in order, and the tensors that they read.

Needs only the package `onnx`, imported when a graph is created. Operators are those of set 18 (2022), supported by all
recent runtimes.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_schemas.errors import EnvironmentProblem
from modeling.finite_weights import to_dtype

OPERATOR_SET = 18
FILE_VERSION = 8
"""Version of the file format (`ir_version`), released with the operator set."""
MAX_TENSOR_BYTES = 2**31 - 2**24
"""Maximum size of tensors stored with the graph in a protobuf message, which is limited to 2 GiB."""
_TYPES = {
    torch.float32: "FLOAT",
    torch.bfloat16: "BFLOAT16",
    torch.float16: "FLOAT16",
    torch.int64: "INT64",
    torch.int8: "INT8",
}


class OnnxGraph:
    """Nodes and tensors of an ONNX model. Values are referred to by name: methods take and return names."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        """Create an empty graph.

        Args:
            dtype: stored dtype of float matrices; they are cast to float32 before use.

        Raises:
            EnvironmentProblem: if the `onnx` package is missing.
        """
        self._onnx = _onnx()
        self._dtype = dtype
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with a single output. An omitted input is an empty name."""
        output = f"{operator}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def cast(self, value: str, dtype: torch.dtype) -> str:
        """Cast a value to another dtype."""
        return self.node("Cast", value, to=self._type(dtype))

    def weight(self, name: str, tensor: Tensor) -> str:
        """A tensor of the network, floats as float32; stored once even if several modules share it.

        Raises:
            ContractError: if a value overflows the stored dtype.
        """
        if id(tensor) not in self._names:
            values = tensor.detach().cpu()
            if values.is_floating_point():
                values = to_dtype(name, values, self._dtype if values.ndim > 1 else torch.float32)
            is_half = values.dtype in (torch.bfloat16, torch.float16)
            stored = self._store(name, values)
            self._names[id(tensor)] = self.cast(stored, torch.float32) if is_half else stored
        return self._names[id(tensor)]

    def integers(self, *values: int) -> str:
        """A constant (len(values),) int64."""
        name = "integers_" + "_".join(map(str, values))
        return name if name in self._initializers else self._store(name, torch.tensor(values))

    def integer(self, value: int) -> str:
        """A scalar constant, int64."""
        name = f"integer_{value}"
        return name if name in self._initializers else self._store(name, torch.tensor(value))

    def number(self, value: float) -> str:
        """A scalar constant, float32."""
        name = f"number_{value!r}"
        return name if name in self._initializers else self._store(name, torch.tensor(value, dtype=torch.float32))

    def constant(self, name: str, values: Tensor) -> str:
        """A constant with a name, in its own dtype."""
        return self._store(name, values)

    def save(self, path: Path, result: str, vocabulary_size: int, description: str, metadata: dict[str, str]) -> None:
        """Write the graph from `tokens` (batch, tokens) int64 to `logits` (batch, tokens, vocabulary_size) float32.

        Tensors of 2 GiB and more are stored in a second file, PATH.data.

        Args:
            path: path of the new file.
            result: name of the value that is the logits.
            vocabulary_size: last dimension of the logits.
            description: description of the model.
            metadata: metadata properties.
        """
        helper, rows = self._onnx.helper, ("batch", "tokens")
        self._nodes.append(helper.make_node("Identity", [result], ["logits"], name="logits"))
        tokens = helper.make_tensor_value_info("tokens", self._type(torch.int64), rows)
        logits = helper.make_tensor_value_info("logits", self._type(torch.float32), (*rows, vocabulary_size))
        stored = list(self._initializers.values())
        graph = helper.make_graph(self._nodes, "network", [tokens], [logits], stored, doc_string=description)
        operators = [helper.make_opsetid("", OPERATOR_SET)]
        model = helper.make_model(graph, opset_imports=operators, ir_version=FILE_VERSION, producer_name="headrace")
        helper.set_model_props(model, metadata)
        is_large = sum(len(tensor.raw_data) for tensor in stored) > MAX_TENSOR_BYTES
        self._onnx.save_model(model, path, save_as_external_data=is_large, location=f"{path.name}.data")

    def _store(self, name: str, values: Tensor) -> str:
        assert name not in self._initializers, f"{name} is stored already"
        data = values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        sizes = tuple(values.shape)
        self._initializers[name] = self._onnx.helper.make_tensor(name, self._type(values.dtype), sizes, data, raw=True)
        return name

    def _type(self, dtype: torch.dtype) -> int:
        return int(getattr(self._onnx.TensorProto, _TYPES[dtype]))


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise EnvironmentProblem(
            "ONNX export needs the package onnx, which is not installed; install it with: pip install 'headrace[onnx]'"
        ) from None
    return onnx
