"""Backbones and tokenizers: from a local folder, an installed package, or the hub."""

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dylora.config import Kind, ModelConfig, PathsConfig, TaskConfig
from dylora.errors import UserError
from dylora.hub import why_unreachable


def locate(model: ModelConfig, paths: PathsConfig) -> str:
    """Where the weights are: a folder if there is one on this machine, else the hub id.

    In this order: pretrained here on toy text, `name_or_path` as a folder, below `paths.models` by
    the id's last part, in the package `model.package` if it is installed, the hub.
    """
    if model.toy:
        from dylora.pretrain import toy_model  # only toy models need the pre-training code

        return str(toy_model(model.name, Path(paths.cache)))
    local = Path(paths.models) / Path(model.name_or_path).name
    for folder in (Path(model.name_or_path), local):
        if (folder / "config.json").is_file():
            return str(folder)
    if model.package is not None and (spec := find_spec(model.package)) is not None:
        assert spec.origin is not None
        return str(Path(spec.origin).parent / "model")
    return model.name_or_path


def load_backbone(
    model: ModelConfig, task: TaskConfig, paths: PathsConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The float32 model with the head that the task needs, and its tokenizer.

    Seed torch before: a new head is drawn from its generator. Raises UserError, saying which option
    to set, when the model is nowhere to be had.
    """
    source = locate(model, paths)
    reason = None if Path(source).is_dir() else why_unreachable(source, "model")
    options = {"revision": model.revision, "local_files_only": reason is not None}
    loader: type[AutoModelForCausalLM | AutoModelForSequenceClassification] = AutoModelForCausalLM
    head = {}
    if task.kind != Kind.generation:
        loader = AutoModelForSequenceClassification
        head["num_labels"] = len(task.labels) if task.kind == Kind.classification else 1
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        backbone = loader.from_pretrained(source, dtype=torch.float32, **options, **head)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {model.name_or_path} could not be loaded from {source} "
            f"({reason or str(error).partition(chr(10))[0]})\n"
            f"Put its files in {Path(paths.models) / Path(model.name_or_path).name}, or set "
            "paths.models= or model.name_or_path= to a folder that has them. "
            "`python run.py` without arguments needs neither files nor network."
        ) from error
    positions = getattr(backbone.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return backbone, tokenizer
