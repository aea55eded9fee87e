import csv
import re
from pathlib import Path

import pytest

from data_schemas.errors import InputDataError
from infra.planner.published.accuracy import FITTED_BLOCK, errors_by_block, predict
from infra.planner.published.interpretation import Run, interpret
from infra.planner.published.rows import COLUMNS, number, read_rows

MPT = {
    "model": "MPT 7b", "params_b": "6.659", "layers": "32", "hidden": "4096", "heads": "32", "ffn": "16384",
    "vocab": "50368", "hardware": "h100_80gb (H100 80GB BF16)", "gpus": "128", "precision": "amp_bf16", "tp": "1",
    "pp": "1", "dp": "128", "fsdp": "FULL_SHARD", "micro_batch": "6", "global_batch_seqs": "768", "seq_len": "2048",
    "recompute": "none", "step_time_s": "1.173", "source": "mosaicml/llm-foundry README, 'H100 80GB BF16'",
}  # fmt: skip


def written(tmp_path, *rows, columns=COLUMNS):
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def run_of(tmp_path, **changes):
    return interpret(read_rows(written(tmp_path, {**MPT, **changes}))[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,536", 1536), ("~4.2M", 4.2e6), ("2048 (inferred)", 2048), ("1e3", 1000), ("82.4", 82.4), ("", None),
        ("n/a", None), ("18432 / 2048 per expert", 18432), ("3_145_728", 3_145_728), ("about 105 s", 105), ("8k", 8000),
        ("64 GPUs", 64), (">= 3", 3), ("0x10", 0), ("1 536", 1536), ("1'536", 1536), ("1\u00a0536", 1536), ("1,5", 1.5),
        ("1,234,567.5", 1234567.5), ("128Ki", 2**17), ("67.6 GiB", 67.6), ("41,2%", 41.2),
    ],
)  # fmt: skip
def test_numbers_in_any_spelling(text, value):
    assert number(text) == value


def test_a_row_is_predicted_from_its_columns_alone(tmp_path):
    run = run_of(tmp_path)
    assert run.network.total_parameters / 1e9 == pytest.approx(6.659, rel=0.01)
    assert (run.layout.shard, run.layout.micro_batch, run.rows, run.cluster.devices) == (128, 6, 768, 128)
    assert run.assumptions == ()
    prediction = predict(run)
    assert abs(prediction.time_error_percent) < 10
    without = predict(run_of(tmp_path, step_time_s="", notes="", mfu_pct=""))
    assert without.step_seconds == prediction.step_seconds
    assert without.time_error_percent is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hardware": "Cerebras CS-3"}, "line 2 .*hardware is 'Cerebras CS-3', which names no known accelerator"),
        ({"hardware": ""}, "hardware is nothing"),
        ({"model": "Mystery", "layers": "", "hidden": "wide"}, "layers, hidden missing, and no shape is known"),
        ({"gpus": "", "dp": ""}, "gpus is missing"),
        ({"tp": "16", "pp": "16"}, "tp x pp x cp is 256, more than 128 devices"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(tmp_path, changes, sentence):
    result = run_of(tmp_path, **changes)
    assert isinstance(result, str)
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(result)


@pytest.mark.parametrize(
    "value", ["", "n/a", "-3", "0", "lots", "1e30", "999999999", "7", "." * 50_000, "9" * 400, "1,5%"]
)
def test_any_column_may_be_missing_or_odd(tmp_path, value):
    """A hostile row is predicted, or refused with one sentence; never an exception."""
    rows = [{**MPT, column: value} for column in COLUMNS]
    rows += [{**MPT, "fsdp": "", column: value} for column in COLUMNS]
    rows += [{**MPT, column: value, "gpus": "", "tp": "", "pp": "", "dp": "", "fsdp": ""} for column in COLUMNS]
    for row in read_rows(written(tmp_path, *rows)):
        result = interpret(row)
        if isinstance(result, Run):
            prediction = predict(result)
            assert prediction.step_seconds > 0 and prediction.memory_bytes > 0
        else:
            assert result.startswith(f"line {row.line} ")


def test_usual_spellings_of_context_and_devices(tmp_path):
    assert run_of(tmp_path, seq_len="8k").network.context == 8192
    run = run_of(tmp_path, hardware="8x H100-80GB SXM", gpus="", dp="")
    assert (run.cluster.device, run.cluster.devices) == ("H100", 8)


def test_a_name_gives_a_shape_only_to_the_network_that_has_it(tmp_path):
    shape = {"layers": "", "hidden": "", "heads": "", "ffn": "", "vocab": ""}
    assert run_of(tmp_path, model="BLOOM 176B", **shape).network.layers == 70
    assert isinstance(run_of(tmp_path, model="BLOOM 7B", **shape), str)
    assert isinstance(run_of(tmp_path, model="GPT-3 13B", **shape), str)
    assert run_of(tmp_path, model="Meta-Llama-3.1-8B", **shape).network.total_parameters == pytest.approx(
        8.03e9, rel=0.01
    )


@pytest.mark.parametrize(
    ("text", "shard"),
    [("FULL_SHARD", 128), ("128", 128), ("16", 16), ("7", 1), ("HYBRID_SHARD", 8), ("no", 1), ("", 1)],
)
def test_the_shards_of_a_row(tmp_path, text, shard):
    assert run_of(tmp_path, fsdp=text).layout.shard == shard


def test_figures_of_speed_agree_in_every_unit(tmp_path):
    """A step time, tokens per second, TFLOP/s and MFU of the same run give the same measured step."""
    tokens = 768 * 2048
    run = run_of(tmp_path)
    rate = tokens * run.network.training_flops / 128 / 1.173
    units = {
        "tokens_s_gpu": tokens / 128 / 1.173,
        "tflops_per_gpu": rate / 1e12,
        "mfu_pct": 100 * rate / run.cluster.peak_flops,
    }
    for column, value in units.items():
        assert predict(run_of(tmp_path, step_time_s="", **{column: str(value)})).measured_seconds == pytest.approx(
            1.173
        )
    recomputed = run_of(
        tmp_path, step_time_s="", tflops_per_gpu=str(rate / 0.75e12), source="arXiv 2104.04473", fsdp=""
    )
    assert predict(recomputed).measured_seconds == pytest.approx(1.173)


def test_other_columns_and_another_order_and_rows_of_other_lengths_do_no_harm(tmp_path):
    columns = ["comment", *reversed(COLUMNS)]
    path = written(tmp_path, MPT, columns=columns)
    assert isinstance(interpret(read_rows(path)[0]), Run)
    with Path(path).open("a") as file:
        file.write("only a comment\n\n" + "," * 60 + "\n")
    assert [isinstance(interpret(row), str) for row in read_rows(path)] == [False, True]


@pytest.mark.parametrize("content", [b"", b"model,hardware\n", b"a,b\n1,2\n", b"\xff\xfe\x00\x01", b"PK\x03\x04\x00"])
def test_a_file_that_is_no_table_of_runs_is_refused(tmp_path, content):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(InputDataError, match=r"runs\.csv"):
        read_rows(str(path))


def test_errors_of_a_block_by_hand(tmp_path):
    exact = predict(run_of(tmp_path, step_time_s="")).step_seconds
    rows = [{**MPT, "step_time_s": str(exact / share)} for share in (1.1, 0.9, 1.6)]
    predictions = [predict(interpret(row)) for row in read_rows(written(tmp_path, *rows))]
    block, stated, others = errors_by_block(predictions)
    assert (block.rows, stated.rows, others.block) == (3, 3, "all others")
    assert (block.mean, block.largest) == (pytest.approx(80 / 3), pytest.approx(60))
    assert (block.within_15, block.covered) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({}, {"encoding": "utf-8-sig", "newline": "\r\n"}),
        ({}, {"encoding": "utf-16"}),
        ({}, {"delimiter": "\t"}),
        ({"step_time_s": "1,2"}, {"delimiter": ";"}),
        ({"step_time_s": "1200 ms"}, {}),
        ({"step_time_s": "0.02 min"}, {}),
        ({"global_batch_seqs": "1572864 tokens"}, {}),
        ({"vp": "0", "tp": "-1", "cp": "1e30"}, {}),
        ({"step_time_s": "0m 1.2s", "seq_len": "2 048", "vocab": "50'368", "gpus": "16 nodes x 8 GPUs"}, {}),
        ({"step_time_s": "00:01.2", "seq_len": "2Ki", "gpus": "16x8", "global_batch_seqs": "768.0"}, {}),
        ({"step_time_s": "1,2 s", "vocab": "50.368", "hidden": "4.096", "seq_len": "2.048"}, {"delimiter": ";"}),
        ({"source": "2\u00d7 faster"}, {"encoding": "cp1252", "delimiter": "|"}),
    ],
)
def test_a_row_in_other_forms_is_the_same_run(tmp_path, changes, form):
    plain = {
        "model": "a", "hardware": "H100 80GB", "gpus": "128", "layers": "32", "hidden": "4096", "heads": "32",
        "vocab": "50368", "seq_len": "2048", "global_batch_seqs": "768", "fsdp": "FULL_SHARD", "step_time_s": "1.2",
        "source": "",
    }  # fmt: skip
    predictions = []
    for name, row, options in (("plain", plain, {}), ("other", {**plain, **changes}, form)):
        path, delimiter = tmp_path / f"{name}.csv", options.get("delimiter", ",")
        columns = reversed(row) if name == "other" else row
        lines = [delimiter.join(column) for column in zip(*((key, row[key]) for key in columns), strict=True)]
        text = options.get("newline", "\n").join([*lines, ""])
        path.write_bytes(text.encode(options.get("encoding", "utf-8")))
        run = interpret(read_rows(str(path))[0])
        assert isinstance(run, Run), run
        predictions.append(predict(run))
    assert predictions[0].step_seconds == predictions[1].step_seconds
    assert predictions[0].measured_seconds == pytest.approx(predictions[1].measured_seconds)


@pytest.mark.parametrize(
    ("column", "text"),
    [("gpus", "0"), ("gpus", "-5"), ("gpus", "1e30"), ("layers", "0.5"), ("layers", "1e9"), ("hidden", "1e12")],
)
def test_absurd_sizes_are_refused_by_name(tmp_path, column, text):
    row = {"model": "a", "hardware": "H100", "gpus": "8", "layers": "2", "hidden": "64", column: text}
    path = tmp_path / "runs.csv"
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    refused = interpret(read_rows(str(path))[0])
    assert isinstance(refused, str) and f"{column} {text!r}" in refused


@pytest.mark.parametrize(
    "bad",
    [
        '"{row}', '{row},"', '"MPT" 7b,{row}', "{row},1,024", "x" * 200_000 + ",{row}",
    ],
)  # fmt: skip
def test_a_line_that_is_no_row_costs_its_own_prediction_only(tmp_path, bad):
    header, row = Path(written(tmp_path, MPT)).read_text().splitlines()
    path = tmp_path / "broken.csv"
    path.write_text("\n".join([header, row, bad.replace("{row}", row), row, ""]))
    first, refused, last = (interpret(one) for one in read_rows(str(path)))
    assert isinstance(first, Run) and isinstance(last, Run)
    assert isinstance(refused, str) and refused.startswith("line 3 ") and re.search("no CSV|cells for", refused)


@pytest.mark.parametrize(
    ("text", "precision"),
    [("", "bf16"), ("n/a", "bf16"), ("BF16/FP32", "bf16"), ("bfloat16", "bf16"), ("mixed", "bf16"), ("half", "fp16"),
     ("16-mixed", "fp16"), ("float8_e4m3", "fp8"), ("MXFP8", "fp8"), ("float32", "fp32"), ("TF32", "tf32")],
)  # fmt: skip
def test_types_of_products_in_any_spelling(tmp_path, text, precision):
    assert run_of(tmp_path, precision=text).software.precision == precision


@pytest.mark.parametrize("text", ["banana", "int4", "fp64", "nvfp4"])
def test_an_unknown_type_is_refused_for_its_row(tmp_path, text):
    assert f"precision is {text!r}; expected fp8, bf16" in run_of(tmp_path, precision=text)


@pytest.mark.parametrize(
    ("text", "mode"),
    [("none (flash attention)", "none"), ("disabled", "none"), ("No recompute", "none"), ("selective", "selective"),
     ("activation checkpointing off", "none"), ("-", "none"), ("yes", "full"), ("uniform", "full")],
)  # fmt: skip
def test_recomputation_in_any_words(tmp_path, text, mode):
    assert run_of(tmp_path, recompute=text).layout.recompute == mode


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [("params_b", "6659M", 6.659), ("params_b", "6,659,000,000", 6.659), ("params_b", "175", 175),
     ("params_b", "1.3T", 1300), ("memory_gib_per_gpu", "69222 MiB", 67.6), ("step_time_s", "2 h", 7200),
     ("step_time_s", "1m 10s", 70), ("step_time_s", "1,173", 1.173), ("step_time_s", "1,173 ms", 1.173),
     ("mfu_pct", "41,250", 41.25), ("tokens_s_gpu", "10,500", 10_500), ("tflops_per_gpu", "1,234", 1_234),
     ("seq_len", "1M", 2**20), ("mfu_pct", "0.41", 41), ("mfu_pct", "41 %", 41),
     ("memory_gib_per_gpu", "84%", None), ("tflops_per_gpu", "45%", None), ("gpus", "16 nodes", None),
     ("micro_batch", "1.5", None)],
)  # fmt: skip
def test_cells_with_units_are_in_the_columns_unit_or_unreadable(tmp_path, column, text, value):
    [row] = read_rows(written(tmp_path, {**MPT, column: text}))
    assert row.get(column) == (value if value is None else pytest.approx(value, rel=1e-4))
    assert (value is None) == (f"{column} {text!r}" in row.unreadable)


@pytest.mark.parametrize("text", ["a100_80gb (A100 80GB)", "A100-80GB", "A100-SXM4-80GB", "NVIDIA A100 SXM 80 GB"])
def test_rows_of_the_fitted_block_are_so_in_any_spelling_of_their_device(tmp_path, text):
    assert run_of(tmp_path, hardware=text, source="mosaicml/llm-foundry README").row.block == FITTED_BLOCK


def test_an_absurd_measurement_is_none(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("model,hardware,gpus,layers,hidden,memory_gib_per_gpu,mfu_pct\na,H100,8,2,64,1e30,5000\n")
    run = interpret(read_rows(str(path))[0])
    assert predict(run).measured_memory is predict(run).measured_seconds is None
