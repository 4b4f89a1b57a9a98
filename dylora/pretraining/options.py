"""The options of a pretraining. No torch here, for which `--help` need not wait."""

from dataclasses import dataclass
from enum import StrEnum

from dylora.suite.config import Precision


class PretrainObjective(StrEnum):
    """What the model learns to predict: masked tokens (RoBERTa) or the next token (GPT-2)."""

    masked = "masked"
    causal = "causal"


@dataclass
class PretrainConfig:
    """A small language model and how it is trained; `steps` or `minutes` ends the training."""

    objective: PretrainObjective = PretrainObjective.causal
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
