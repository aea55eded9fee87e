"""An ONNX graph while it is built: operators one after the other, and the tensors that they read.

The package `onnx` alone is needed, and only once a graph is begun. Operators are those of set 18 (2022), which every
runtime of the last years has.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_schemas.errors import EnvironmentProblem
from modeling.finite_weights import to_dtype

OPERATOR_SET = 18
FILE_VERSION = 8
"""Of the file format (`ir_version`): the one that came with the operators."""
MOST_IN_ONE_FILE = 2**31 - 2**24
"""Bytes of tensors beside which the graph still fits into a protobuf message, which cannot have 2 GiB."""
_TYPES = {
    torch.float32: "FLOAT",
    torch.bfloat16: "BFLOAT16",
    torch.float16: "FLOAT16",
    torch.int64: "INT64",
    torch.int8: "INT8",
}


class OnnxGraph:
    """What a model's file will hold. Names stand for values: what a method returns is what another one takes."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        """Begin an empty graph.

        Args:
            dtype: in which float matrices are stored; they are made float32 again before they are used.

        Raises:
            EnvironmentProblem: where the `onnx` package is missing.
        """
        self._onnx = _onnx()
        self._dtype = dtype
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output. An input that is left out is an empty name."""
        output = f"{operator}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def cast(self, value: str, dtype: torch.dtype) -> str:
        """The same numbers in another dtype."""
        return self.node("Cast", value, to=self._type(dtype))

    def weight(self, name: str, tensor: Tensor) -> str:
        """One of the network's tensors, floats as float32; it is stored once, however many modules share it.

        Raises:
            ContractError: where the stored dtype cannot hold a value.
        """
        if id(tensor) not in self._names:
            kept = tensor.detach().cpu()
            if kept.is_floating_point():
                kept = to_dtype(name, kept, self._dtype if kept.ndim > 1 else torch.float32)
            short = kept.dtype in (torch.bfloat16, torch.float16)
            stored = self._store(name, kept)
            self._names[id(tensor)] = self.cast(stored, torch.float32) if short else stored
        return self._names[id(tensor)]

    def integers(self, *values: int) -> str:
        """A constant (len(values),) int64."""
        name = "integers_" + "_".join(map(str, values))
        return name if name in self._initializers else self._store(name, torch.tensor(values))

    def integer(self, value: int) -> str:
        """A constant int64 without dimensions."""
        name = f"integer_{value}"
        return name if name in self._initializers else self._store(name, torch.tensor(value))

    def number(self, value: float) -> str:
        """A constant float32 without dimensions."""
        name = f"number_{value!r}"
        return name if name in self._initializers else self._store(name, torch.tensor(value, dtype=torch.float32))

    def constant(self, name: str, values: Tensor) -> str:
        """A constant of that name, in the dtype that it has."""
        return self._store(name, values)

    def save(self, path: Path, result: str, vocabulary_size: int, description: str, facts: dict[str, str]) -> None:
        """Write the graph from `tokens` (batch, tokens) int64 to `logits` (batch, tokens, vocabulary_size) float32.

        Tensors of 2 GiB and more lie in a second file, PATH.data.

        Args:
            path: of the new file.
            result: what becomes the logits.
            vocabulary_size: the logits' last dimension.
            description: for people.
            facts: names and values, for programs.
        """
        helper, rows = self._onnx.helper, ("batch", "tokens")
        self._nodes.append(helper.make_node("Identity", [result], ["logits"], name="logits"))
        tokens = helper.make_tensor_value_info("tokens", self._type(torch.int64), rows)
        logits = helper.make_tensor_value_info("logits", self._type(torch.float32), (*rows, vocabulary_size))
        stored = list(self._initializers.values())
        graph = helper.make_graph(self._nodes, "network", [tokens], [logits], stored, doc_string=description)
        operators = [helper.make_opsetid("", OPERATOR_SET)]
        model = helper.make_model(graph, opset_imports=operators, ir_version=FILE_VERSION, producer_name="headrace")
        helper.set_model_props(model, facts)
        apart = sum(len(one.raw_data) for one in stored) > MOST_IN_ONE_FILE
        self._onnx.save_model(model, path, save_as_external_data=apart, location=f"{path.name}.data")

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
            "ONNX files are written with the package onnx, which is not installed; "
            "install it with: pip install 'headrace[onnx]'"
        ) from None
    return onnx
