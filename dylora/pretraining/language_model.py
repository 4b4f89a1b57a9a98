"""Small language models and their batches and losses: masked (RoBERTa) and causal (GPT-2).

Blocks are cut from the running text, so nothing is padded.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from dylora.errors import UserError
from dylora.pretraining.options import PretrainConfig, PretrainObjective
from dylora.pretraining.text import Tokens
from dylora.suite.config import Precision

MASKED_LABEL = -100


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


def new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A model with random weights, on the GPU if there is one; torch's generators stay as they are.

    `config.seed` decides the weights.
    """
    with kept_generators(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(config.seed)
        if config.objective == PretrainObjective.causal:
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
        masked = self.config.objective == PretrainObjective.masked
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
        if self.config.objective == PretrainObjective.masked:
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
    """Mean cross-entropy over the labeled tokens, in nats, and their number.

    The output layer, most of a small model's work, runs at labeled positions only.
    """
    labeled = labels != MASKED_LABEL
    hidden = model.base_model(inputs).last_hidden_state[labeled]
    logits = model.lm_head(hidden)
    return F.cross_entropy(logits.float(), labels[labeled]), int(labeled.sum())


@torch.inference_mode()
def validation_loss(model: PreTrainedModel, batches: Batches) -> float:
    """Mean loss over `eval_blocks` blocks that are always the same."""
    device, config = model.device, batches.config
    total, count = 0.0, 0
    model.eval()
    for step in range(1, math.ceil(config.eval_blocks / config.batch_size) + 1):
        inputs, labels = batches(-step, config.batch_size)
        with autocast(config, device):
            loss, labeled = language_loss(model, inputs.to(device), labels.to(device))
        total, count = total + loss.item() * labeled, count + labeled
    model.train()
    return total / count


def autocast(config: PretrainConfig, device: torch.device) -> torch.autocast:
    """The context in which a forward pass has `config.precision`."""
    dtype = torch.float16 if config.precision == Precision.fp16 else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.precision != Precision.fp32)
