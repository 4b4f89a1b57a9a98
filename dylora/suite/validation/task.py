"""The checks of a task's options that need no data."""

from dylora.metrics import metric_named, metrics_for
from dylora.metrics.nlg import PROTOCOLS
from dylora.suite.config import Kind, TaskConfig
from dylora.tasks import LOADERS


def task_faults(task: TaskConfig) -> list[str]:
    """What is wrong with the options of a task, and what to type instead."""
    faults: list[str] = []
    name = f"task {task.name}"
    for option in ("train_rows", "max_train_rows", "max_eval_rows", "holdout"):
        value = getattr(task, option)
        if value is not None and value < 1:
            faults.append(f"task.{option}={value}: must be at least 1, or null for all rows")
    if task.holdout is not None and (task.kind == Kind.generation or len(task.eval_splits) > 1):
        faults.append(f"{name}: task.holdout needs a classification or regression with one split")
    if task.files.get("train") is None:
        faults.append(f"{name}: name the training file with task.files.train=FILE")
    of_texts = task.kind == Kind.generation
    formats = [known for known in LOADERS if (known in PROTOCOLS) == of_texts]
    if task.format not in formats:
        needed = "a loader and a scorer of texts" if of_texts else "a loader of labels"
        faults.append(
            f"{name}: task.format={task.format}; a {task.kind} task takes {', '.join(formats)}, "
            f"which have {needed}"
        )
    return faults + (_generation_faults(task, name) if of_texts else _label_faults(task, name))


def _generation_faults(task: TaskConfig, name: str) -> list[str]:
    faults = [
        f"task.decode.{option}={getattr(task.decode, option)}: must be at least 1"
        for option in ("beams", "max_new_tokens", "token_budget")
        if getattr(task.decode, option) < 1
    ]
    scorings = {scoring.name: scoring for scoring in PROTOCOLS.get(task.format, [])}
    chosen = task.protocol or next(iter(scorings), "")
    if chosen in scorings:
        of_kind = metrics_for(task.kind)
        known = [metric for metric in scorings[chosen].metrics if metric in of_kind]
        faults += _metric_faults(task, name, f"the scoring {chosen} of {task.format}", known)
    elif scorings:
        faults.append(
            f"{name}: task.protocol={chosen}; how {task.format} is scored: {', '.join(scorings)}"
        )
    return faults


def _metric_faults(task: TaskConfig, name: str, whose: str, known: list[str]) -> list[str]:
    if task.metrics and set(task.metrics) <= set(known):
        return []
    return [f"{name}: task.metrics={task.metrics}; {whose} has {', '.join(known)}"]


def _label_faults(task: TaskConfig, name: str) -> list[str]:
    """Faults of a classification or a regression."""
    faults = _metric_faults(task, name, f"a {task.kind} task", metrics_for(task.kind))
    if task.protocol is not None:
        faults.append(
            f"{name}: task.protocol={task.protocol}: only texts are scored by one; whose settings "
            "to follow is protocol=paper or protocol=released"
        )
    if not task.label:
        faults.append(f"{name}: task.label= must name the column with the labels")
    if not 1 <= len(task.text) <= 2:
        faults.append(f"{name}: task.text={task.text} must name one or two text columns")
    if task.kind == Kind.classification and len(task.labels) < 2:
        faults.append(f"{name}: task.labels={task.labels} must name two classes or more")
    if len({*task.labels}) != len(task.labels):
        faults.append(f"{name}: task.labels={task.labels} names a class twice")
    for metric in task.metrics:
        if metric_named(metric).two_classes and len(task.labels) != 2:
            faults.append(f"{name}: {metric} is for two classes; leave it out of task.metrics")
    if task.kind == Kind.regression and task.labels:
        faults.append(f"{name}: task.labels={task.labels}, but a regression has no classes")
    if task.select_metric not in task.metrics:
        faults.append(
            f"{name}: task.select_metric={task.select_metric} is not one of task.metrics "
            f"({', '.join(task.metrics)})"
        )
    return faults
