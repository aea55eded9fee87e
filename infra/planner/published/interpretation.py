"""Interpretation of a published row: network, layout, cluster, software; with every assumption named.

- `Run`: a row ready to predict; `interpret`: the run, or the sentence why there is none
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from infra.planner.accelerators import accelerator_names, find_accelerator
from infra.planner.clusters import Cluster, cluster_of
from infra.planner.layouts import Layout, Recompute, Software
from infra.planner.memory import memory_parts
from infra.planner.networks import Network, plain_network
from infra.planner.published.models import family_of, known_shape
from infra.planner.published.rows import UNKNOWN, PublishedRow, number
from infra.planner.published.software import PRECISIONS, precision_of, software_of
from infra.planner.search import best_layout

MICRO_TOKENS = 8_192
"""Tokens per micro-batch if the row does not give it."""
ROWS_PER_RANK = 4
OWN_LAYOUT = "the planner's layout"
SHAPES: tuple[dict[str, Any], ...] = (
    {}, {"tied": True}, {"gated": True}, {"gated": True, "key_value_heads": 8}, {"key_value_heads": 8},
)  # fmt: skip
"""Kinds of networks of an unknown family; the one with the stated number of parameters is taken."""


@dataclass(frozen=True)
class Run:
    """A published run, as far as its row and names tell."""

    row: PublishedRow
    network: Network
    layout: Layout
    cluster: Cluster
    software: Software
    rows: int
    """Rows of the global batch."""
    assumptions: tuple[str, ...]

    @property
    def states_layout(self) -> bool:
        """True if layout and batch are the row's own, and not assumed."""
        return not any(text == OWN_LAYOUT or text.startswith("a batch of") for text in self.assumptions)


def interpret(row: PublishedRow) -> Run | str:
    """The run of a row, or one sentence that says what is missing."""
    where = f"line {row.line} ({row.model})"
    if row.problem:
        return f"{where}: {row.problem}"
    accelerator = find_accelerator(row.texts["hardware"])
    if accelerator is None:
        found = repr(row.texts["hardware"]) if row.texts["hardware"] else "nothing"
        return f"{where}: hardware is {found}, which names no known accelerator ({', '.join(accelerator_names())})"
    if precision_of(row.texts["precision"]) is None:
        return f"{where}: precision is {row.texts['precision']!r}; expected {', '.join(dict(PRECISIONS))}, or nothing"
    fields, assumed = _filled(row)
    missing = [name for name in ("layers", "hidden", "seq_len") if name not in fields]
    if missing:
        return f"{where}: {', '.join(missing)} missing, and no shape is known by that name{_unreadable(row)}"
    network = _network(row, fields, assumed)
    devices = int(fields.get("gpus", 0)) or _product(fields) or _counted(row.texts["hardware"])
    if not devices:
        return f"{where}: gpus is missing, and the layout does not give it{_unreadable(row)}"
    cluster = cluster_of(accelerator, devices)
    nodes = re.search(r"(\d+) per node", row.texts["hardware"])
    if nodes:
        cluster = cluster.model_copy(update={"node_devices": min(devices, int(nodes[1]))})
    software = software_of(row)
    batch = _rows(fields, network, devices, assumed)
    layout = _layout(row, fields, network, cluster, software, batch, assumed)
    if isinstance(layout, str):
        return f"{where}: {layout}"
    batch = max(batch, layout.batch_ranks * layout.micro_batch)
    return Run(row, network, layout, cluster, software, batch, tuple(assumed))


def _unreadable(row: PublishedRow) -> str:
    return f"; unreadable: {', '.join(row.unreadable)}" if row.unreadable else ""


def _filled(row: PublishedRow) -> tuple[dict[str, float], list[str]]:
    """Numbers of the row, completed by the shape of a known network and by one another."""
    fields, known = dict(row.numbers), known_shape(row.model)
    assumed = [f"unreadable: {', '.join(row.unreadable)}"] if row.unreadable else []
    layout_given = row.block != "Megatron 2022" or any(name in fields for name in ("tp", "pp", "dp", "gpus"))
    shape = ("layers", "hidden", "heads", "ffn", "vocab", "seq_len")
    taken = [name for name in known if name not in fields and (name in shape or not layout_given)]
    fields |= {name: float(known[name]) for name in taken}
    if taken:
        assumed.append(f"{', '.join(taken)} by the network's name")
    if "heads" not in fields and "hidden" in fields:
        fields["heads"] = max(1.0, fields["hidden"] // 128)
        assumed.append("heads of 128")
    if "seq_len" not in fields and {"tokens_per_step", "global_batch_seqs"} <= fields.keys():
        fields["seq_len"] = fields["tokens_per_step"] / fields["global_batch_seqs"]
    if "seq_len" not in fields:
        fields["seq_len"] = 2048.0
        assumed.append("seq_len 2048")
    if "vocab" not in fields:
        fields["vocab"] = 50_304.0
        assumed.append("vocab 50,304")
    if "ffn" not in fields and "hidden" in fields:
        fields["ffn"] = 4 * fields["hidden"]
    return fields, assumed


def _network(row: PublishedRow, fields: dict[str, float], assumed: list[str]) -> Network:
    shape = {name: int(fields[name]) for name in ("layers", "hidden", "heads", "ffn", "vocab", "seq_len")}
    shape["heads"] = max(1, min(shape["heads"], shape["hidden"]))
    family = family_of(row.model)
    choices = (family,) if family else SHAPES
    networks = [
        plain_network(
            shape["layers"], shape["hidden"], shape["heads"], shape["ffn"], shape["vocab"], shape["seq_len"], **choice
        )
        for choice in choices
    ]
    stated = fields.get("params_b", 0) * 1e9
    if family or not stated:
        return networks[0]
    nearest = min(networks, key=lambda network: abs(math.log(network.total_parameters / stated)))
    assumed.append(f"{'gated' if nearest.matrices == 3 else 'plain'} feed-forward, by params_b")
    return nearest


def _counted(hardware: str) -> int:
    """Devices of a text such as `8x H100` or `H100 x 8`; 0 if it gives no number."""
    match = re.match(r"\s*(\d{1,6})\s*[x×]\s*[a-z]", hardware, re.IGNORECASE) or re.search(
        r"[\w)]\s*[x×]\s*(\d{1,6})\s*$", hardware, re.IGNORECASE
    )
    return int(match[1]) if match else 0


def _product(fields: dict[str, float]) -> int:
    if "dp" not in fields:
        return 0
    return int(math.prod(fields.get(name, 1.0) for name in ("tp", "pp", "cp", "dp")))


def _rows(fields: dict[str, float], network: Network, devices: int, assumed: list[str]) -> int:
    """Rows of the global batch."""
    if "global_batch_seqs" in fields:
        return max(1, round(fields["global_batch_seqs"]))
    if "tokens_per_step" in fields:
        return max(1, round(fields["tokens_per_step"] / network.context))
    model_ranks = int(fields.get("tp", 1) * fields.get("pp", 1) * fields.get("cp", 1))
    micro = int(fields.get("micro_batch", max(1, MICRO_TOKENS // network.context)))
    rows = max(1, devices // max(1, model_ranks)) * micro * (1 if "micro_batch" in fields else ROWS_PER_RANK)
    assumed.append(f"a batch of {rows} rows")
    return rows


def _layout(
    row: PublishedRow, fields: dict[str, float], network: Network, cluster: Cluster, software: Software, rows: int,
    assumed: list[str],
) -> Layout | str:  # fmt: skip
    devices = cluster.devices
    if not any(name in fields for name in ("tp", "pp", "dp")) and not row.texts["fsdp"] and devices > 1:
        found = best_layout(network, cluster, software, rows)
        assumed.append(OWN_LAYOUT)
        return found if found is not None else "no layout is given, and none fits"
    tensor, pipeline, context = (max(1, int(fields.get(name, 1))) for name in ("tp", "pp", "cp"))
    model_ranks = tensor * pipeline * context
    ranks = max(1, devices // model_ranks)
    if model_ranks > devices:
        return f"tp x pp x cp is {model_ranks}, more than {devices} devices"
    shard = _shards(row, ranks, max(1, cluster.node_devices // (tensor * context)))
    micro = _micro_batch(fields, network, rows, ranks, pipeline, shard)
    if "micro_batch" not in fields:
        assumed.append(f"micro-batch {micro}")
    virtual = max(1, int(fields.get("vp", 2 if "interleaved" in row.texts["notes"].lower() else 1)))
    if pipeline > 1 and rows // ranks <= micro and micro > 1:
        micro = max(1, micro // pipeline)
    layout = Layout(
        data=max(1, ranks // shard), shard=shard, tensor=tensor, pipeline=pipeline, context=context,
        expert=min(max(1, int(fields.get("ep", 1))), ranks), micro_batch=micro, virtual=virtual,
        keeps_gathered=re.search(r"grad_op|zero\D{0,8}2", row.texts["fsdp"].lower()) is not None,
    )  # fmt: skip
    return _with_recompute(row, layout, network, cluster, software, rows, assumed)


def _shards(row: PublishedRow, ranks: int, in_node: int) -> int:
    """Ranks that share the parameters, of a column with a number or a name such as FULL_SHARD."""
    text = row.texts["fsdp"].strip().lower()
    count = number(text)
    if count is not None:
        return int(count) if 1 <= count <= ranks and ranks % count == 0 else 1
    if re.search(r"hybrid|hsdp", text):
        return math.gcd(ranks, in_node)
    return 1 if text in UNKNOWN or re.search(r"^no|false|ddp|off|zero\D{0,8}1", text) else ranks


def _micro_batch(fields: dict[str, float], network: Network, rows: int, ranks: int, pipeline: int, shard: int) -> int:
    """Rows per micro-batch as stated, else 1 in a pipeline, all rows of a rank with shards (up to 16,384 tokens)."""
    own = max(1, rows // ranks)
    if "micro_batch" in fields:
        return max(1, min(int(fields["micro_batch"]), own))
    tokens = MICRO_TOKENS * (2 if shard > 1 else 1)
    most = 1 if pipeline > 1 else max(1, tokens // network.context)
    return max(size for size in range(1, min(most, own) + 1) if own % size == 0)


def _with_recompute(
    row: PublishedRow, layout: Layout, network: Network, cluster: Cluster, software: Software, rows: int,
    assumed: list[str],
) -> Layout:  # fmt: skip
    text = row.texts["recompute"].lower()
    is_unknown = text in UNKNOWN - {"none"}
    if is_unknown and not software.flash:
        assumed.append("full recompute, as all systems without fused attention")
        return replace(layout, recompute="full")
    if is_unknown:
        modes: tuple[Recompute, ...] = ("none", "selective", "full")
        for mode in modes:
            tried = replace(layout, recompute=mode)
            if sum(memory_parts(network, tried, software, rows).values()) <= cluster.memory_bytes:
                break
        assumed.append(f"recompute {tried.recompute}, the first that fits")
        return tried
    if "selective" in text or "partial" in text:
        return replace(layout, recompute="selective")
    is_off = re.match(r"(no|none|n|false|off|0|without|not)\b", text) or re.search(r"\b(off|disabled|false)$", text)
    return layout if is_off else replace(layout, recompute="full")
