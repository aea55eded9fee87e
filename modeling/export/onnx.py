"""Export networks as ONNX, for onnxruntime and other runtimes: input `tokens`, output `logits`.

The graph is the forward pass over whole rows of any length, without a key-value cache. It supports dense networks,
window attention, separate documents, multipliers, and the results of most compression passes: fewer heads or neurons,
low-rank matrices, sparse activations and int8 with integer products.
"""

from pathlib import Path

import torch

from data_schemas.errors import ContractError
from modeling.export.gpt_neox import EXPORT_HEADRACE
from modeling.export.onnx_graph import OnnxGraph
from modeling.export.onnx_layers import add_network, unsupported_module
from modeling.finite_weights import check_finite
from modeling.transformer import Transformer


def write_onnx(model: Transformer, path: Path, description: str, dtype: torch.dtype = torch.float32) -> None:
    """Write an ONNX file; the same model gives the same bytes.

    Args:
        model: network in evaluation mode.
        path: path of the new file; tensors of 2 GiB and more are stored in a second file, PATH.data.
        description: description in the file's metadata.
        dtype: stored dtype of float matrices: float32, bfloat16 or float16. They are cast to float32 on loading; norms,
            biases, scales and integers keep their dtypes.

    Raises:
        ContractError: if the network is not supported, or a weight is not finite or overflows `dtype`.
        EnvironmentProblem: if the `onnx` package is missing.
    """
    problem = unsupported_module(model)
    if problem is not None:
        raise ContractError(f"the network {problem}, which --format onnx cannot express; {EXPORT_HEADRACE}")
    check_finite(model.state_dict(), "the network to export to ONNX")
    graph = OnnxGraph(dtype)
    logits = add_network(graph, model)
    metadata = {
        "context_length": str(model.config.context_length),
        "end_of_text": str(model.config.end_of_text),
    }
    graph.save(path, logits, model.config.vocabulary_size, description, metadata)
