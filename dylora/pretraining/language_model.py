"""Small language models and the loop that trains them: masked (RoBERTa) and causal (GPT-2).

One process, one device. Blocks are cut from the running text, so nothing is padded.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from dylora.errors import UserError
from dylora.files import whole_file
from dylora.pretraining.text import Objective, Tokens
from dylora.suite.config import Precision
from dylora.suite.signals import Interrupted, stop_requests

CHECKPOINT_SECONDS = 120.0
SAVED = ("model", "optimizer", "scaler")  # of State, beside the progress
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
MASKED_LABEL = -100


@dataclass
class PretrainConfig:
    """A small language model and how it is trained; `steps` or `minutes` ends the training."""

    objective: Objective = Objective.causal
    layers: int = 4
    hidden: int = 256
    heads: int = 4
    vocab: int = 8192  # tokens, at most 65536
    context: int = 256  # tokens in a block
    batch_size: int = 16  # blocks in a step
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup: float = 0.03  # this part of the training; then a cosine down to a tenth
    dropout: float = 0.0  # the data is seen about once
    mask: float = 0.15  # this part of the tokens is to be predicted; masked only
    steps: int | None = None
    minutes: float | None = None  # of training, over all continuations
    precision: Precision = Precision.fp32
    eval_steps: int = 500  # steps between two validations
    eval_blocks: int = 200
    seed: int = 1


def check(config: PretrainConfig) -> None:
    """Raises UserError when the options do not fit together."""
    if config.steps is None and config.minutes is None:
        raise UserError("nothing says when to stop: set minutes=40, steps=1000, or both")
    if config.hidden % config.heads:
        raise UserError(f"hidden={config.hidden} must be a multiple of heads={config.heads}")
    if not 300 <= config.vocab <= 65536:
        raise UserError(f"vocab={config.vocab} must be from 300 to 65536 (256 of them are bytes)")
    if config.precision == Precision.fp16 and not torch.cuda.is_available():
        raise UserError("precision=fp16 needs a GPU; on a CPU use precision=bf16 or fp32")


@dataclass
class Progress:
    """How far a training is, and its loss on the validation tokens."""

    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float, float]] = field(default_factory=list)  # step, seconds, loss


def new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A model with random weights, on the GPU if there is one; torch's generators stay as they are.

    `config.seed` decides the weights.
    """
    with kept_generators(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(config.seed)
        if config.objective == Objective.causal:
            return GPT2LMHeadModel(_gpt2(config, tokenizer))
        return RobertaForMaskedLM(_roberta(config, tokenizer))


def kept_generators() -> AbstractContextManager[None]:
    """Within the block seeding and drawing leave torch's generators, on all devices, untouched."""
    return torch.random.fork_rng(range(torch.cuda.device_count()))


def _deviation(config: PretrainConfig) -> float:
    """Of the weights: wider than 0.02, which suits a width of 1000 (sqrt(2/5d), 1910.05895)."""
    return math.sqrt(2 / (5 * config.hidden))


def _gpt2(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_layer=config.layers,
        n_embd=config.hidden,
        n_head=config.heads,
        n_positions=config.context,
        activation_function="gelu_pytorch_tanh",  # the same as GPT-2's, in one fused kernel
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        initializer_range=_deviation(config),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _roberta(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> RobertaConfig:
    return RobertaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=config.layers,
        hidden_size=config.hidden,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden,
        max_position_embeddings=config.context + tokenizer.pad_token_id + 1,
        type_vocab_size=1,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        initializer_range=_deviation(config),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@dataclass
class Batches:
    """Blocks at random places of the text; block and masks depend on seed and step alone."""

    tokens: Tokens
    tokenizer: PreTrainedTokenizerFast
    config: PretrainConfig

    def __post_init__(self) -> None:
        masked = self.config.objective == Objective.masked
        self.length = self.config.context + (-2 if masked else 1)  # of the text, in a block
        if len(self.tokens) < self.length:
            raise UserError(
                f"text of {len(self.tokens)} tokens fills no block of context={self.config.context}"
            )

    def __call__(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a step, both (size, context); validation's steps are negative."""
        generator = np.random.default_rng((self.config.seed, abs(step), int(step < 0)))
        starts = generator.integers(len(self.tokens) - self.length + 1, size=size)
        blocks = np.stack([self.tokens[start : start + self.length] for start in starts])
        if self.config.objective == Objective.masked:
            return self._masked(blocks.astype(np.int64), generator)
        rows = torch.from_numpy(blocks.astype(np.int64))
        return rows[:, :-1], rows[:, 1:]

    def _masked(self, blocks: np.ndarray, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """BERT's masking: of the chosen tokens 80% hidden, 10% exchanged, 10% left."""
        tokenizer = self.tokenizer
        chosen = generator.random(blocks.shape) < self.config.mask
        chosen &= blocks >= len(tokenizer.all_special_ids)  # the special tokens have the first ids
        labels = np.where(chosen, blocks, MASKED_LABEL)
        fate = generator.random(blocks.shape)
        inputs = np.where(chosen & (fate < 0.8), tokenizer.mask_token_id, blocks)
        others = generator.integers(
            len(tokenizer.all_special_ids), len(tokenizer), size=blocks.shape
        )
        inputs = np.where(chosen & (fate >= 0.9), others, inputs)
        ends = ((0, 0), (1, 1))
        inputs = np.pad(inputs, ends, constant_values=0)
        inputs[:, 0], inputs[:, -1] = tokenizer.bos_token_id, tokenizer.eos_token_id
        labels = np.pad(labels, ends, constant_values=MASKED_LABEL)
        return torch.from_numpy(inputs), torch.from_numpy(labels)


def language_loss(model: PreTrainedModel, inputs: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Mean cross-entropy over the labelled tokens, in nats, and their number.

    The output layer, most of a small model's work, runs at labelled positions only.
    """
    labelled = labels != MASKED_LABEL
    hidden = model.base_model(inputs).last_hidden_state[labelled]
    logits = model.lm_head(hidden)
    return F.cross_entropy(logits.float(), labels[labelled]), int(labelled.sum())


@torch.inference_mode()
def validation_loss(model: PreTrainedModel, batches: Batches) -> float:
    """Mean loss over `eval_blocks` blocks that are always the same."""
    device, config = model.device, batches.config
    total, count = 0.0, 0
    model.eval()
    for step in range(1, math.ceil(config.eval_blocks / config.batch_size) + 1):
        inputs, labels = batches(-step, config.batch_size)
        with _autocast(config, device):
            loss, labelled = language_loss(model, inputs.to(device), labels.to(device))
        total, count = total + loss.item() * labelled, count + labelled
    model.train()
    return total / count


def _autocast(config: PretrainConfig, device: torch.device) -> torch.autocast:
    dtype = torch.float16 if config.precision == Precision.fp16 else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.precision != Precision.fp32)


def _optimizer(model: PreTrainedModel, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases and norms do not."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)


def _done(progress: Progress, config: PretrainConfig) -> float:
    """The part of the training that is done, by steps or by the clock, whichever ends it first."""
    by_steps = progress.step / config.steps if config.steps else 0.0
    by_clock = progress.seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(by_steps, by_clock)


def learning_rate(done: float, config: PretrainConfig) -> float:
    """Linear warm-up, then a cosine down to a tenth of `learning_rate`; `done` is from 0 to 1."""
    if done < config.warmup:
        return config.learning_rate * max(done / config.warmup, 0.01)
    cosine = 0.5 * (1 + math.cos(math.pi * (done - config.warmup) / (1 - config.warmup)))
    return config.learning_rate * (0.1 + 0.9 * cosine)


@dataclass
class State:
    """All that the next step depends on."""

    model: PreTrainedModel
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    progress: Progress

    def save(self, path: Path) -> None:
        """Write it to `path`, whole or not at all."""
        parts = {
            name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler")
        }
        with whole_file(path) as unfinished:
            torch.save(parts | {"progress": asdict(self.progress)}, unfinished)

    def load(self, path: Path) -> None:
        """Put back what `save` wrote."""
        saved = torch.load(path, map_location=self.model.device, weights_only=True)
        for name in SAVED:
            getattr(self, name).load_state_dict(saved[name])
        self.progress = Progress(**saved["progress"])

    def step(self, inputs: Tensor, labels: Tensor, config: PretrainConfig, rate: float) -> float:
        """One optimizer step on a batch; its loss."""
        device = self.model.device
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with _autocast(config, device):
            loss, _ = language_loss(self.model, inputs.to(device), labels.to(device))
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.progress.step += 1
        return loss.item()


def train(
    model: PreTrainedModel,
    batches: Batches,
    validation: Batches,
    checkpoint: Path | None = None,
    title: str = "pretraining",
) -> Progress:
    """Train `model` in place until `steps` or `minutes` are over, going on from `checkpoint`.

    Continued after a stop it gives what an uninterrupted training gives (with `steps`; a clock
    cannot). Raises Interrupted, with the checkpoint written, on SIGINT or SIGTERM.
    """
    config = batches.config
    scaler = torch.amp.GradScaler(model.device.type, enabled=config.precision == Precision.fp16)
    state = State(model, _optimizer(model, config), scaler, Progress())
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
    progress, saved = state.progress, time.monotonic()
    bar = tqdm(total=1.0, desc=title, bar_format=BAR, leave=False, mininterval=0.5, disable=None)
    # Without a checkpoint there is nothing to save, and signals are only seen in the main thread.
    requests: AbstractContextManager[list[int]] = nullcontext([])
    if checkpoint is not None:
        requests = stop_requests()
    model.train()
    with kept_generators(), requests as stop, bar:
        while (done := _done(progress, config)) < 1:
            started = time.monotonic()
            torch.manual_seed(config.seed * 1_000_003 + progress.step)  # of this step's dropout
            inputs, labels = batches(progress.step, config.batch_size)
            loss = state.step(inputs, labels, config, learning_rate(done, config))
            if progress.step % config.eval_steps == 0:
                _validate(model, validation, progress)
            progress.seconds += time.monotonic() - started
            _show(bar, progress, loss, config)
            if checkpoint is not None and (stop or time.monotonic() - saved > CHECKPOINT_SECONDS):
                state.save(checkpoint)
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"stopped after step {progress.step}; run again to go on")
        if not progress.losses or progress.losses[-1][0] != progress.step:
            _validate(model, validation, progress)
        if checkpoint is not None:
            state.save(checkpoint)
    return progress


def _validate(model: PreTrainedModel, validation: Batches, progress: Progress) -> None:
    loss = validation_loss(model, validation)
    progress.losses.append((progress.step, round(progress.seconds, 1), loss))


def _show(bar: tqdm, progress: Progress, loss: float, config: PretrainConfig) -> None:
    rate = progress.step * config.batch_size * config.context / max(progress.seconds, 1e-9)
    shown = {"step": progress.step, "loss": f"{loss:.3f}", "tokens/s": f"{rate:.0f}"}
    if progress.losses:
        shown["validation"] = f"{progress.losses[-1][2]:.3f}"
    bar.set_postfix(shown, refresh=False)
    bar.update(min(_done(progress, config), 1.0) - bar.n)
