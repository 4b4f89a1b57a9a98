"""The model card of an exported folder: what it is, how it scored, how to load it. No torch here.

A card is a README.md that starts with YAML which the Hugging Face hub reads. Every number in it
comes from the run's record.
"""

from huggingface_hub import EvalResult, ModelCardData

from dylora.methods import METHODS
from dylora.metrics import metric_named
from dylora.metrics.base import FRACTION, Metric
from dylora.results.deploy import Backbone
from dylora.results.runs import Run
from dylora.suite.config import Kind

AUTO = {  # transformers' loader and the hub's pipeline, by the kind of task
    Kind.classification: ("ForSequenceClassification", "text-classification"),
    Kind.regression: ("ForSequenceClassification", "text-classification"),
    Kind.generation: ("ForCausalLM", "text-generation"),
}


def model_card(
    run: Run,
    rank: int,
    backbone: Backbone,
    address: str,
    merged: bool = False,
    license: str | None = None,
) -> str:
    """The README.md of a run's export at `rank`.

    `address` is what to load the folder by: a path or the hub's OWNER/NAME. `license` is the
    author's choice, as the hub writes it (mit, apache-2.0); without one the card says so.
    """
    data = _metadata(run, rank, backbone, merged, license)
    sections = [
        _summary(run, rank, backbone, merged),
        _scores(run, rank),
        _loading(run, backbone, address, merged),
        _training(run, rank, backbone),
        _license(license),
        _citation(run),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _metadata(
    run: Run, rank: int, backbone: Backbone, merged: bool, license: str | None
) -> ModelCardData:
    pipeline = AUTO[run.option("task.kind")][1]
    dataset = run.option("task.hub")
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type=dataset or run.task,
            dataset_name=run.task,
            dataset_config=run.option("task.hub_config"),
            metric_type=metric_named(name).hub,
            metric_name=name,
            metric_value=value,
        )
        for name, value in run.scores.get(rank, {}).items()
        if value is not None
    ]
    return ModelCardData(
        base_model=backbone.name if backbone.on_hub else None,
        library_name="transformers" if merged else "peft",
        pipeline_tag=pipeline,
        license=license,
        datasets=[dataset] if dataset else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=list(dict.fromkeys(["lora", run.method])),
        model_name=f"{run.signature} at rank {rank}" if results else None,
        eval_results=results or None,
    )


def _summary(run: Run, rank: int, backbone: Backbone, merged: bool) -> str:
    base = f"[{backbone.name}](https://huggingface.co/{backbone.name})"
    if not backbone.on_hub:
        base = f"`{run.model}`"
    if merged:
        what = f"{base} with a LoRA of rank {rank} merged into its weights"
    else:
        what = f"A LoRA adapter of rank {rank} for {base}"
    method = METHODS[run.method]
    if method.trains_every_rank:
        origin = f"cut from one {method.label} training for all ranks from 1 to {run.max_rank}"
    elif rank == run.max_rank:
        origin = f"plain {method.label}, trained at this rank"
    else:
        origin = f"plain {method.label}, trained at rank {run.max_rank} and truncated"
    title = f"# {run.signature}, rank {rank}"
    return f"{title}\n\n{what}, trained on the task {run.task}. It is {origin}."


def _scores(run: Run, rank: int) -> str:
    names = list(next(iter(run.scores.values())))
    lines = ["| rank | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for b, values in sorted(run.scores.items()):
        cells = [_cell(values.get(name), metric_named(name)) for name in names]
        label = f"**{b}, this one**" if b == rank else str(b)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    fractions = all(metric_named(name).unit == FRACTION for name in names)
    unit = "in percent" if fractions else "as each metric counts"
    about = [
        f"On {' and '.join(run.option('task.eval_splits'))}, {unit}; one run, seed {run.seed}."
    ]
    if rank not in run.scores:
        about.append(f"Rank {rank} itself was not scored.")
    if run.limits:
        limits = ", ".join(f"{name}={value}" for name, value in run.limits.items())
        about.append(f"Not all data or steps were used: {limits}.")
    return "## Scores\n\n" + "\n".join(lines) + "\n\n" + " ".join(about)


def _cell(value: float | None, metric: Metric) -> str:
    return "-" if value is None else f"{metric.printed(value):.2f}"


def _loading(run: Run, backbone: Backbone, address: str, merged: bool) -> str:
    kind, labels = run.option("task.kind"), run.option("task.labels")
    loader = AUTO[kind][0]
    count = "" if kind == Kind.generation else f", num_labels={max(1, len(labels))}"
    revision = run.option("model.revision")
    at = f', revision="{revision}"' if revision and backbone.on_hub else ""
    if merged:
        return "## How to load\n\n" + _code(
            f"from transformers import AutoModel{loader}, AutoTokenizer",
            "",
            f'model = AutoModel{loader}.from_pretrained("{address}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{address}")',
            *_use(run),
        )
    return "\n\n".join(
        [
            "## How to load",
            "With PEFT:",
            _code(
                f"from peft import AutoPeftModel{loader}",
                "from transformers import AutoTokenizer",
                "",
                f'model = AutoPeftModel{loader}.from_pretrained("{address}"{count})',
                f'tokenizer = AutoTokenizer.from_pretrained("{backbone.name}"{at})',
                *_use(run),
            ),
            "With transformers, which needs PEFT installed for it:",
            _code(
                f"from transformers import AutoModel{loader}",
                "",
                f"model = AutoModel{loader}.from_pretrained(",
                f'    "{backbone.name}"{at}{count}',
                ")",
                f'model.load_adapter("{address}")',
            ),
            *([] if backbone.on_hub else [_whose_backbone(run)]),
        ]
    )


def _whose_backbone(run: Run) -> str:
    made = "this project makes itself" if run.option("model.toy") else "is not on the hub"
    return (
        f"The base model `{run.model}` {made}; the path above is of the machine that wrote this "
        "card. Elsewhere, load your copy and hand it to `PeftModel.from_pretrained`."
    )


def _use(run: Run) -> list[str]:
    """Lines of code from TEXT to an answer, with the same tokens as in training."""
    if run.option("task.kind") == Kind.generation:
        decode = run.option("task.decode")
        search = {"num_beams": "beams"} | {
            name: name for name in ("length_penalty", "no_repeat_ngram_size", "max_new_tokens")
        }
        return [
            "",
            'inputs = tokenizer(TEXT + tokenizer.eos_token, return_tensors="pt")',
            "tokens = model.generate(",
            "    **inputs,",
            *(f"    {name}={decode[own]}," for name, own in search.items() if own in decode),
            ")",
            'prompt_length = inputs["input_ids"].shape[1]',
            "answer = tokenizer.decode(tokens[0, prompt_length:], skip_special_tokens=True)",
        ]
    texts = "TEXT, SECOND_TEXT" if len(run.option("task.text")) == 2 else "TEXT"
    lines = ["", f'logits = model(**tokenizer({texts}, return_tensors="pt")).logits']
    if run.option("task.kind") == Kind.regression:
        return [*lines, "answer = logits.item()"]
    return [*lines, f"answer = {run.option('task.labels')}[logits.argmax()]"]


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _training(run: Run, rank: int, backbone: Backbone) -> str:
    draws = METHODS[run.method].draws_ranks
    train = [f"{run.option(f'train.{name}'):g}" for name in ("epochs", "batch_size")]
    rows = {
        "task": run.task,
        "base model": backbone.name if backbone.on_hub else run.model,
        "its weights": _package(run),
        "method": run.method,
        "ranks": f"1 to {run.max_rank}, {run.option('method.rank_distribution')}" if draws else "",
        "max_rank": str(run.max_rank),
        "alpha": f"{run.option('method.alpha'):g}",
        "scaling here": _scaling(run, rank),
        "frozen": str(run.option("method.frozen")).lower() if draws else "",
        "target modules": ", ".join(run.option("model.target_modules")),
        "trained in full": ", ".join(run.option("model.head")),
        "epochs, batch size": ", ".join(train),
        "learning rate": f"{run.option('train.learning_rate'):g}",
        "precision": f"{run.option('train.precision')}, base model {run.option('model.dtype')}",
        "started from": run.option("init_adapter"),
        "seed": str(run.seed),
        "commit": _commit(run),
        "versions": ", ".join(f"{k} {v}" for k, v in run.record.get("packages", {}).items() if v),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join(["## Training", "", "| option | value |", "| --- | --- |", *lines])


def _scaling(run: Run, rank: int) -> str:
    method = METHODS[run.method]
    weights = method.weights(rank, run.max_rank, run.option("method.alpha"))
    value = f"{weights[0]:g}"
    if len(set(weights)) > 1:
        value = f"in B, from {min(weights):g} to {max(weights):g} by component"
    return f"{value} = {method.formula}" if method.formula else value


def _package(run: Run) -> str:
    package = run.option("model.package")
    return f"of the Python package {package} where it is installed, else the hub's" * bool(package)


def _commit(run: Run) -> str:
    git = run.record.get("git") or {}
    changed = " with uncommitted changes" if git.get("uncommitted_changes") else ""
    return f"{git.get('commit', 'unknown')}{changed}"


def _license(license: str | None) -> str:
    stated = f"This folder: {license}." if license else "The author of this folder stated none."
    return f"## License\n\n{stated} The base model and the data have licenses of their own."


def _citation(run: Run) -> str:
    """What to cite; empty for a method that names nothing."""
    entries = [f"```bibtex\n{entry}\n```" for entry in METHODS[run.method].citation]
    return "\n\n".join(["## Citation", *entries]) if entries else ""
