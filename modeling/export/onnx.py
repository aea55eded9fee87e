"""Networks as ONNX, for onnxruntime and whatever else runs such files: `tokens` in, `logits` out.

The graph is the forward pass over whole rows of any length; it has no cache. Beside the dense networks it takes windows
of attention, separate documents, multipliers, and what most compression passes leave: fewer heads or neurons, low-rank
matrices, sparse activations and int8, whose products are of integers there too.
"""

from pathlib import Path

import torch

from data_schemas.errors import ContractError
from modeling.export.gpt_neox import EXPORT_HEADRACE
from modeling.export.onnx_graph import OnnxGraph
from modeling.export.onnx_layers import add_network, obstacle
from modeling.finite_weights import check_finite
from modeling.transformer import Transformer


def write_onnx(model: Transformer, path: Path, description: str, dtype: torch.dtype = torch.float32) -> None:
    """Write one file; the same model gives the same bytes.

    Args:
        model: in evaluation mode.
        path: of the new file; tensors of 2 GiB and more go to a second one, PATH.data.
        description: for people, in the file's metadata.
        dtype: of float matrices in the file: float32, bfloat16 or float16. They are made float32 again when it is
            loaded; norms, biases, scales and integers are stored as they are.

    Raises:
        ContractError: where there are no operators for the network, a weight is not finite, or `dtype` cannot hold it.
        EnvironmentProblem: where the `onnx` package is missing.
    """
    problem = obstacle(model)
    if problem is not None:
        raise ContractError(f"the network {problem}, which --format onnx cannot express; {EXPORT_HEADRACE}")
    check_finite(model.state_dict(), "the network to export to ONNX")
    graph = OnnxGraph(dtype)
    logits = add_network(graph, model)
    facts = {
        "context_length": str(model.config.context_length),
        "end_of_text": str(model.config.end_of_text),
    }
    graph.save(path, logits, model.config.vocabulary_size, description, facts)
