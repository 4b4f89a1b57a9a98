"""From plain text to a folder that `from_pretrained` loads, for backbones where none can be had.

`pretrain` makes a weak but real model from any text files; `toy_model` makes, once, the tiny models
of the offline default.
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from dylora.errors import UserError
from dylora.files import make_folder, write_text
from dylora.pretraining.language_model import Batches, check, new_model
from dylora.pretraining.loop import PretrainProgress, train_language_model
from dylora.pretraining.options import PretrainConfig, PretrainObjective
from dylora.pretraining.text import (
    SEPARATOR,
    Tokens,
    digest,
    encode,
    find_files,
    read_pieces,
    train_tokenizer,
)
from dylora.tasks.toy import corpus

STATE = "state.pt"  # of an unfinished training
HELD_OUT = 0.01  # of the text validates when there is no validation text


def pretrain(
    config: PretrainConfig, text: str, output: Path, validation: str | None, cache: Path
) -> Path:
    """Pretrain a model on the text files that `text` matches and save it as the folder `output`.

    The tokens are kept below `cache` by content. An unfinished training is kept beside `output` and
    goes on when called again; `output` itself is there only when it is complete. Raises UserError
    when options, text or the unfinished training do not fit.
    """
    check(config)
    if output.exists():
        raise UserError(f"{output} is there already; remove it or choose another output=")
    files = find_files(text)
    held_out = find_files(validation) if validation else []
    key = digest(read_pieces(files), config.objective.value, config.vocab)
    if held_out:
        key = digest(read_pieces(held_out), key)

    def tokenize(folder: Path) -> None:
        tokenizer = train_tokenizer(
            read_pieces(files), config.objective, config.vocab, config.context
        )
        tokenizer.save_pretrained(folder)
        for name, paths in (("train", files), ("validation", held_out)):
            with (folder / f"{name}.bin").open("wb") as file:
                for tokens in encode(read_pieces(paths), tokenizer):
                    file.write(tokens.tobytes())

    folder = make_folder(cache / f"tokens-{key[:12]}", tokenize)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, model_max_length=config.context)
    train_tokens: Tokens = np.memmap(folder / "train.bin", np.uint16, "r")
    if held_out:
        held_tokens: Tokens = np.memmap(folder / "validation.bin", np.uint16, "r")
    else:
        train_tokens, held_tokens = split(train_tokens)
    batches = Batches(train_tokens, tokenizer, config)
    held = Batches(held_tokens, tokenizer, config)
    unfinished = output.with_name(output.name + ".unfinished")
    _same_training(unfinished, config, key)
    model = new_model(config, tokenizer)
    progress = train_language_model(model, batches, held, unfinished / STATE)
    facts = {"text": text, "validation": validation, "sha256": key, "tokens": len(train_tokens)}
    make_folder(output, lambda made: _save(made, model, tokenizer, config, progress, facts))
    shutil.rmtree(unfinished)
    return output


def _same_training(unfinished: Path, config: PretrainConfig, key: str) -> None:
    """Note in `unfinished` what is trained, or refuse to continue what was something else."""
    fixed = replace(config, steps=None, minutes=None, eval_steps=0, eval_blocks=0)
    wanted = {**asdict(fixed), "sha256": key}
    path = unfinished / "training.json"
    if (unfinished / STATE).exists() and json.loads(path.read_text()) != wanted:
        raise UserError(
            f"{unfinished} holds the unfinished training of another model or text: repeat its "
            "options to go on, remove it to start anew, or choose another output="
        )
    write_text(path, json.dumps(wanted, indent=1))


def split(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """The text without its end, and its end to validate on."""
    kept = int(len(tokens) * (1 - HELD_OUT))
    return tokens[:kept], tokens[kept:]


def _save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    config: PretrainConfig,
    progress: PretrainProgress,
    facts: dict[str, Any],
) -> None:
    """Model, tokenizer and pretrain.json, which says what they were made from."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loss = progress.losses[-1][2]
    made = {
        "config": asdict(config),
        "data": facts,
        "parameters": model.num_parameters(),
        "steps": progress.step,
        "tokens_seen": progress.step * config.batch_size * config.context,
        "seconds": round(progress.seconds, 1),
        "device": {"type": model.device.type, "threads": torch.get_num_threads()},
        "validation": {"loss": loss, "perplexity": math.exp(loss), "history": progress.losses},
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }
    (folder / "pretrain.json").write_text(json.dumps(made, indent=1) + "\n")


@dataclass(frozen=True)
class ToyModel:
    """A tiny model, and which toy text it learns from."""

    topic: str
    documents: int
    config: PretrainConfig


TOY_MODELS = {
    "tiny_roberta": ToyModel(
        "village",
        12_000,
        PretrainConfig(
            objective=PretrainObjective.masked,
            layers=3,
            hidden=64,
            heads=4,
            vocab=1000,
            context=40,
            batch_size=48,
            learning_rate=6e-3,
            weight_decay=0.01,
            warmup=0.1,
            mask=0.2,
            steps=700,
            seed=2,
            eval_steps=10_000,
            eval_blocks=192,
        ),
    ),
    "tiny_gpt2": ToyModel(
        "inns",
        8_000,
        PretrainConfig(
            layers=3,
            hidden=64,
            heads=4,
            vocab=1000,
            context=128,
            batch_size=24,
            learning_rate=6e-3,
            weight_decay=0.01,
            warmup=0.1,
            steps=400,
            eval_steps=10_000,
            eval_blocks=96,
        ),
    ),
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch adds up in one order, however many cores there are.

    Models this small gain nothing from more threads, and lose a lot where the cores are busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def toy_model(name: str, cache: Path) -> Path:
    """The folder of a tiny model pretrained on toy text; made now if it is not below `cache`.

    Its name ends in a hash of text, model and training. Raises UserError if there is none of that
    name.
    """
    if name not in TOY_MODELS:
        raise UserError(f"no toy model {name!r}; there are {', '.join(TOY_MODELS)}")
    toy = TOY_MODELS[name]
    documents = list(corpus(toy.topic, toy.config.seed, toy.documents))
    key = digest(documents, asdict(toy.config))

    def make(folder: Path) -> None:
        config = toy.config
        pieces = [piece for document in documents for piece in (document, SEPARATOR)]
        tokenizer = train_tokenizer(documents, config.objective, config.vocab, config.context)
        tokens, held_out = split(np.concatenate(list(encode(pieces, tokenizer))))
        model = new_model(config, tokenizer)
        batches, validation = (Batches(part, tokenizer, config) for part in (tokens, held_out))
        with one_thread():
            progress = train_language_model(
                model, batches, validation, title=f"pretraining {name}, once"
            )
        facts = {"text": f"toy {toy.topic}", "sha256": key, "tokens": len(tokens)}
        _save(folder, model, tokenizer, config, progress, facts)

    return make_folder(cache / f"{name}-{key[:12]}", make)
