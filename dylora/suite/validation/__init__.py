"""The checks of a configuration that need no data, model or network, and no torch."""

import math
import re
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dylora.errors import UserError
from dylora.methods import METHODS
from dylora.suite.config import (
    Architecture,
    Config,
    Dtype,
    EvaluateConfig,
    Kind,
    MethodConfig,
    Precision,
    Protocol,
    RankDistribution,
    RankLoss,
    RankScope,
    TrackerConfig,
    TrackerMode,
    TrackerName,
    TrainConfig,
    Truncation,
    default_ranks,
)
from dylora.suite.validation.task import task_faults

RELEASED = Path(__file__).parents[3] / "conf" / "recipe" / "released"


def validate(config: Config) -> None:
    """Check what the types cannot; raises UserError listing every fault and what to type."""
    if config.method.name not in METHODS:
        raise UserError(f"method.name={config.method.name}: must be one of {', '.join(METHODS)}")
    faults = [
        *_name_faults(config),
        *_number_faults(asdict(config)),
        *_rank_faults(config.method, config.train, config.evaluate),
        *_train_faults(config.train),
        *task_faults(config.task),
        *_pairing_faults(config),
        *_protocol_faults(config),
        *_tracker_faults(config.tracker),
    ]
    if faults:
        raise UserError("\n".join(faults))


def _name_faults(config: Config) -> list[str]:
    """Files and folders are named by these, so that none may lead out of the results folder."""
    task, model = config.task, config.model
    names = {f"task.name={task.name}": task.name, f"model.name={model.name}": model.name}
    names |= {f"task.files: the split {split}": split for split in task.files}
    advice = "; a hub id or a folder is model.name_or_path"
    return [
        f"{option} must be a plain name: up to 64 letters, digits and . _ + -, a letter or digit "
        f"first{advice if name == model.name else ''}"
        for option, name in names.items()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", name)
    ]


def _number_faults(values: dict[str, Any], prefix: str = "") -> list[str]:
    """inf and nan pass most comparisons, and every option that is a number needs a finite one."""
    faults = []
    for key, value in values.items():
        if isinstance(value, dict):
            faults += _number_faults(value, f"{prefix}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            faults.append(f"{prefix}{key}={value}: must be a finite number")
    return faults


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
    if not METHODS[method.name].draws_ranks:
        drawing = " or ".join(each.name for each in METHODS.values() if each.draws_ranks)
        plain = MethodConfig()
        for option in ("frozen", "strict_freeze", "rank_scope", "min_rank", "loss"):
            if getattr(method, option) != getattr(plain, option):
                faults.append(
                    f"method.{option} needs method={drawing}, this is method={method.name}"
                )
    sandwich = method.rank_distribution == RankDistribution.sandwich
    if sandwich != (method.name == "dylora_sandwich"):
        faults.append(
            "method.rank_distribution=sandwich and method=dylora_sandwich go together: take both"
        )
    if method.loss == RankLoss.sum and method.rank_scope == RankScope.sample:
        faults.append("method.loss=sum takes every rank in each step; leave method.rank_scope=step")
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
    if train.adam_eps <= 0:
        faults.append(f"train.adam_eps={train.adam_eps}: must be above 0, such as 1e-8")
    if train.checkpoint_seconds < 0:
        faults.append(f"train.checkpoint_seconds={train.checkpoint_seconds}: must be at least 0")
    if not 0 <= train.warmup_ratio < 1:
        faults.append(f"train.warmup_ratio={train.warmup_ratio}: a part of all steps, in [0, 1)")
    if not 0 <= train.label_smoothing < 1:
        faults.append(f"train.label_smoothing={train.label_smoothing}: must be in [0, 1)")
    if train.select not in ("mean", "max", "last") and not train.select.isdecimal():
        faults.append(f"train.select={train.select}: must be mean, max, last or a rank such as 4")
    if train.select == "last" and train.patience is not None:
        faults.append("train.patience needs a score to wait for: set train.select=mean")
    return faults


def _truncation_faults(config: Config) -> list[str]:
    """At max_rank a truncation must be the trained adapter itself, scaled as LoRA is."""
    wanted, method = config.evaluate.truncations, config.method
    about, full = METHODS[method.name], method.max_rank
    if Truncation.rescaled in wanted and not about.truncates:
        return [f"evaluate.truncations: rescaled is for method=lora, this is method={method.name}"]
    if wanted and not (
        about.has_ranks and about.weights(full, full, method.alpha) == [method.alpha / full] * full
    ):
        return [f"evaluate.truncations: method={method.name} has no LoRA to sort at max_rank"]
    return []


def _pairing_faults(config: Config) -> list[str]:
    """Faults of the task, the model and the method together."""
    task, model, method = config.task, config.model, config.method
    about = METHODS[method.name]
    needed = Architecture.decoder if task.kind == Kind.generation else Architecture.encoder
    faults = []
    if model.architecture != needed:
        example = "gpt2" if needed == Architecture.decoder else "roberta_base"
        faults.append(
            f"task={task.name} is a {task.kind} task and needs an {needed}, but model={model.name} "
            f"is a {model.architecture}; type model={example}"
        )
    if (about.has_ranks or about.allocates) and not model.target_modules:
        faults.append(
            f"model={model.name} names no layers to adapt; set model.target_modules=[query,value]"
        )
    if about.allocates and not _installed("peft"):
        faults.append(f"method={method.name} is PEFT's own: pip install peft")
    if about.allocates and any(":" in name for name in model.target_modules or []):
        faults.append(
            f"method={method.name} adapts whole layers only; set model.target_modules to names "
            "such as [query,value], without a colon"
        )
    if not (about.has_ranks or about.trains_backbone or about.allocates or model.head):
        faults.append(f"method={method.name}: model={model.name} has no head; set model.head=[...]")
    if task.kind != Kind.regression and config.train.bias_from_labels:
        faults.append("train.bias_from_labels is for a regression; this task has classes or texts")
    if task.kind == Kind.regression and config.train.label_smoothing:
        faults.append("train.label_smoothing: a regression task has no labels to smooth")
    if model.dtype != Dtype.fp32 and about.trains_backbone:
        faults.append(
            f"model.dtype={model.dtype}: method={method.name} trains the weights; use fp32"
        )
    if model.dtype == Dtype.bf16 and config.train.precision != Precision.bf16:
        faults.append("model.dtype=bf16 needs train.precision=bf16: heads stay float32")
    if model.dtype in (Dtype.int8, Dtype.nf4) and not _installed("bitsandbytes"):
        faults.append(
            f"model.dtype={model.dtype} needs bitsandbytes: pip install 'dylora[quantization]'"
        )
    select, ranks = config.train.select, config.train.eval_ranks
    if select == "max" and ranks is not None:
        select = str(method.max_rank)
    if select.isdecimal() and int(select) not in (ranks or default_ranks(method.max_rank)):
        faults.append(
            f"train.select={config.train.select}: rank {select} is not scored after each epoch; "
            f"set train.eval_ranks=[{select}]"
        )
    if config.layout.get("kind") == "settings" or config.layout.get("own_runs") is False:
        faults.append("this experiment has no runs of its own; type `make tables` for its table")
    faults += _truncation_faults(config)
    if config.init_alpha is not None and config.init_adapter is None:
        faults.append("init_alpha is the alpha of the file init_adapter=FILE, which is not set")
    if model.dropout is not None and not 0 <= model.dropout < 1:
        faults.append(f"model.dropout={model.dropout}: must be in [0, 1), or null")
    if config.dry_run not in (False, True, "json"):
        faults.append(f"dry_run={config.dry_run}: must be true, json or false")
    if config.threads is not None and config.threads < 1:
        faults.append(f"threads={config.threads}: must be at least 1, or null")
    if config.seed < 0:
        faults.append(f"seed={config.seed}: must be 0 or more")
    return faults


def _protocol_faults(config: Config) -> list[str]:
    """The released scripts have settings for some tasks and models; nothing may stand in for them.

    Toy tasks have none of anybody's, so that any protocol can be tried on them.
    """
    task, model = config.task, config.model.name
    wanted = f"{model}_{task.name}"
    recipes = sorted(path.stem for path in RELEASED.glob("*.yaml"))
    if config.protocol != Protocol.released or task.toy or wanted in recipes:
        return []
    having = [name.removeprefix(f"{model}_") for name in recipes if name.startswith(f"{model}_")]
    known = f" (only for {', '.join(having)})" if having else ""
    return [
        f"protocol=released has no settings for task={task.name} with model={model}{known}; type "
        f"protocol=paper, or write conf/recipe/released/{wanted}.yaml"
    ]


def _tracker_faults(tracker: TrackerConfig) -> list[str]:
    name, plain = tracker.name, TrackerConfig()
    if name != TrackerName.none and not _installed(name):
        return [f"tracker={name} needs a package: type pip install 'dylora[trackers]'"]
    if name != TrackerName.wandb:
        return [
            f"tracker.{option} needs tracker=wandb, this is tracker={name}"
            for option in ("project", "group", "mode", "artifacts")
            if getattr(tracker, option) != getattr(plain, option)
        ]
    if tracker.mode == TrackerMode.online and not _logged_in():
        return ["tracker.mode=online needs a login: type `wandb login` or set WANDB_API_KEY"]
    return []


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _logged_in() -> bool:
    """Whether wandb finds a login; asks neither the user nor the network."""
    import wandb

    return wandb.login(prompt=False, verify=False)
