"""Panel Model: `generate`, `evaluate`, `export`."""

from typing import Annotated, Literal

import typer

from flows.commands.panels.command import (
    AsJson,
    Overrides,
    RunId,
    Store,
    command,
    complete_runs,
    print_json,
)
from flows.store_location import store_url

PANEL = "Model"
app = typer.Typer()


@command(
    app, PANEL, 'headrace generate latest "Return a new array"',
    'headrace generate my-model "The" --tokens 40 --temperature 0',
)  # fmt: skip
def generate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID|FOLDER", help="a run, or a folder with an export or a GPT-NeoX checkpoint of Hugging Face",
            autocompletion=complete_runs,
        ),
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="the beginning of the text")],
    tokens: Annotated[int, typer.Option(min=1, help="tokens to generate, at most")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="sampling temperature; 0: the most likely token")] = 0.8,
    top_k: Annotated[int, typer.Option(min=1, help="sample from the k most likely tokens")] = 50,
    seed: Annotated[int, typer.Option(help="seed of the sampling")] = 0,
    stage: Annotated[str, typer.Option(metavar="STAGE", help="the run's model: compress or pretrain")] = "compress",
    store: Store = None,
) -> None:  # fmt: skip
    """Generate text from a run or a model folder."""
    from flows.commands.generate import continue_text

    typer.echo(continue_text(store_url(store), source, stage, prompt, tokens, temperature, top_k, seed))


@command(
    app, PANEL, "headrace evaluate my-model", "headrace evaluate gpt-neox-checkpoint my-tasks.yaml --output scores"
)
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER", help="a Hugging Face checkpoint, or an export of a run's model")
    ],
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="run config with the tasks; default: the tasks that come with Headrace"),
    ] = None,
    output: Annotated[str, typer.Option(metavar="FOLDER", help="folder for scores, items and answers")] = "evaluation",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="the model's name in the tables; default: the folder's name")
    ] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run benchmark tasks on any model folder."""
    from flows.commands.evaluate import evaluate as run_tasks
    from flows.commands.show import print_scores
    from flows.config.run_config import apply_overrides, build_run_config, load_run_config

    changes = set_ or []
    loaded = load_run_config(config, changes) if config else build_run_config(apply_overrides({}, changes), "--set")
    scores = run_tasks(model, loaded, output, name).to_pylist()
    print_scores(scores)
    typer.echo(f"scores and items: {output}")
    if as_json:
        print_json({"scores": scores, "output": output})


@command(
    app, PANEL, "headrace export latest my-model", "headrace export latest my-model --format gguf --dtype float16",
    "headrace export latest my-model --format headrace --stage compress",
)  # fmt: skip
def export(
    run_id: RunId,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="a new or an empty folder")],
    format_: Annotated[
        Literal["huggingface", "gguf", "onnx", "headrace"],
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="huggingface (transformers), gguf (llama.cpp), onnx (onnxruntime) or headrace (headrace generate)",
        ),
    ] = "huggingface",
    stage: Annotated[str, typer.Option(metavar="STAGE", help="the run's model: pretrain or compress")] = "pretrain",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(metavar="DTYPE", help="dtype of the matrices in the files: float32, bfloat16 or float16"),
    ] = "float32",
    store: Store = None,
) -> None:
    """Export a run's model for transformers, llama.cpp or ONNX.

    Writes the model, its tokenizer and a model card.
    """
    from flows.commands.export import ExportRequest
    from flows.commands.export import export as write_export

    for line in write_export(ExportRequest(store_url(store), run_id, folder, format_, stage, dtype)):
        typer.echo(line)
