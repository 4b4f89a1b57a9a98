"""One run from configuration to record; the only module that sees the whole configuration."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, set_seed
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from dylora.adapter import AdapterConfig, adapt, adapter_state
from dylora.errors import UserError
from dylora.files import write_text
from dylora.heads import freeze_all_but
from dylora.methods import METHODS
from dylora.metrics.java import one_meteor
from dylora.start import read_start, warm_start
from dylora.suite.cli import score_table
from dylora.suite.config import Config, Device, Kind, Precision
from dylora.suite.constant import constant_ranks
from dylora.suite.history import finite
from dylora.suite.record_schema import SCHEMA
from dylora.suite.records import (
    Record,
    is_trial,
    provenance,
    read_record,
    run_folder,
    signature,
    without_neutral,
)
from dylora.suite.signals import hand_on_signals, terminable
from dylora.tasks import load
from dylora.tasks.fingerprint import fingerprint
from dylora.tasks.ready import check_unchanged, finished
from dylora.training import classification, generation
from dylora.training.adalora import with_adalora, with_penalty
from dylora.training.initial_adapter import find_adapter
from dylora.training.keeping import alone, kept, peak_memory
from dylora.training.loop import Plan, train
from dylora.training.machine import OtherPrograms, keep_freed_memory, thread_count
from dylora.training.models import load_backbone, start_bias
from dylora.training.step import Results
from dylora.training.tracking import tracking
from dylora.training.truncation import truncated
from dylora.training.workers import from_all, is_main

PROJECT = Path(__file__).parents[2]


def run(config: Config, command: str = "") -> Record:
    """Train and score what `config` says, or return the record if that is done already.

    `command` is the line that gives this run again, for the record.

    The record, the predictions and the adapter land in one folder (see dylora.suite.records). An
    interrupted run goes on where it stopped, a forced one too, which leaves the old result alone
    until it is done. Raises UserError before anything is written if data, model or options do not
    fit, or another process runs this; a later failure is kept in the record and raised.
    """
    done = finished(config)
    if done is not None:
        return done
    folder = run_folder(config)
    place = folder.parents[1] / "forced" / folder.name if config.force else folder
    record = _run(config, place, command)
    if is_main():
        print(score_table(record))
        print(f"record: {folder / 'record.json'}")
    return record


def _run(config: Config, folder: Path, command: str) -> Record:
    quiet_libraries()
    keep_freed_memory()
    clock, others = Clock(), OtherPrograms()
    torch.set_num_threads(1)  # until the model's size is known
    accelerator = _accelerator(config)
    kind = generation if config.task.kind == Kind.generation else classification
    with clock("prepare"):
        start = _start_of(config)
        with accelerator.main_process_first():  # it makes or downloads what the others then find
            splits = load(config.task, config.paths)
            set_seed(config.seed)
            backbone, tokenizer = load_backbone(config.model, config.task, config.paths)
        if accelerator.device.type == "cpu":
            backbone.set_attn_implementation("eager")  # trains twice as fast as sdpa there
        if config.train.bias_from_labels:
            start_bias(backbone, config.model.head, splits["train"]["label"])
        steps = Plan.of(len(splits["train"]), config.train).total_steps
        model = _trainable(backbone, config, steps)
        if start is not None:
            warm_start(model, start, config.init_alpha, config.model.head)
        objective = kind.objective(config, splits, tokenizer, accelerator.device)
        if METHODS[config.method.name].allocates:
            objective = with_penalty(objective)
    _set_threads(config, model, others, folder)
    record = _new_record(config, command, model, accelerator)
    record["data"] = fingerprint(splits)
    if (folder / "checkpoint").exists():
        begin_anew = f"delete {folder / 'checkpoint'} and repeat the command"
        check_unchanged(read_record(folder), record["data"], begin_anew)
    with (
        alone(folder, run_folder(config)),
        terminable(),
        hand_on_signals(),  # when record and tracker are done: it may end the process
        tracking(config, record) as track,
        kept(folder, record, track) as follow,
        one_meteor(),
    ):
        if is_main() and is_trial(config):
            write_text(folder / ".gitignore", "*\n")
        # The first step's dropout does not depend on what came before it; each process has its own.
        set_seed(config.seed, device_specific=True)
        settings = (config.train, config.method, config.seed, folder, accelerator)
        progress = train(model, objective, *settings, follow)

        def scored(ranks: Sequence[int | None], outputs: Path) -> tuple[Results, dict[str, str]]:
            given = (config, splits, tokenizer, model)
            return kind.evaluate(*given, ranks, accelerator.device, outputs)

        with clock("evaluate"):
            scores, signatures = scored(ranks_of(config), folder / "outputs")
        record["scores"] = _by_name(scores)
        if config.evaluate.truncations:
            with clock("truncations"):
                record["truncations"] = {
                    truncation.value: _by_name(
                        scores | scored(below, folder / "outputs" / truncation)[0]
                    )
                    for truncation, below in truncated(config, model, objective, accelerator.device)
                }
        record["metrics"] = signatures
        record["constant"] = constant_ranks(folder / "outputs", config.task.eval_splits)
        if config.task.kind != Kind.generation:
            record["majority"] = classification.majority(config, splits)
        record["best_epoch"] = progress.best_epoch
        record["times"] = {**clock.seconds, "train": round(progress.seconds, 3)}
        record["peak_memory_bytes"] = peak_memory(accelerator.device)
    return from_all(record)[0]


def _set_threads(config: Config, model: nn.Module, others: OtherPrograms, folder: Path) -> None:
    """As many threads as `thread_count` says; a run that goes on keeps those that it had.

    Sums are rounded by how they are divided among threads, so their number is part of a result.
    """
    former = read_record(folder) if (folder / "checkpoint").exists() else None
    wanted = config.threads or (former or {}).get("device", {}).get("threads")
    busy = others.cores()
    threads = thread_count(sum(p.numel() for p in model.parameters()), busy, wanted)
    torch.set_num_threads(threads)
    if is_main():
        print(f"threads: {threads} (threads=N sets them; others keep {busy:.1f} cores busy)")


def _by_name(scores: Results) -> Record:
    """Scores as the record has them; rank 0 stands for a method without adapters."""
    return {
        str(rank or 0): {metric: finite(value) for metric, value in values.items()}
        for rank, values in scores.items()
    }


class Clock:
    """Seconds spent in named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - started, 3)


def quiet_libraries() -> None:
    """No warnings of a new head, which is meant, and no bars of loading next to our own."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _accelerator(config: Config) -> Accelerator:
    precision, device = config.train.precision, config.device
    if device == Device.cuda and not torch.cuda.is_available():
        raise UserError("device=cuda: torch sees no CUDA device; use device=auto or device=cpu")
    on_cpu = device == Device.cpu or not torch.accelerator.is_available()
    if precision == Precision.fp16 and on_cpu:
        raise UserError("train.precision=fp16 needs a GPU; on a CPU use bf16 or fp32")
    # A sweep runs several configurations in one process; accelerate keeps the first one's state.
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = "no" if precision == Precision.fp32 else precision.value
    # Other processes wait while the main one makes data ready or computes metrics.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    return Accelerator(mixed_precision=mixed, cpu=on_cpu, kwargs_handlers=[patience])


def _trainable(backbone: PreTrainedModel, config: Config, steps: int) -> PreTrainedModel:
    """The backbone with what the method trains, in `steps` steps, and only that with gradients."""
    method, model = config.method, config.model
    if config.train.gradient_checkpointing:
        # The reentrant kind would lose the gradients: a frozen backbone's inputs have none.
        backbone.activation_checkpointing_enable({"use_reentrant": False})
    about = METHODS[method.name]
    if about.trains_backbone:
        return backbone
    if about.allocates:
        return with_adalora(backbone, model, method, steps)
    if not about.has_ranks:
        freeze_all_but(backbone, model.head)
        return backbone
    return adapt(
        backbone,
        target_modules=model.target_modules,
        max_rank=method.max_rank,
        alpha=method.alpha,
        method=method.name,
        dropout=method.dropout,
        frozen=method.frozen,
        head=model.head,
    )


def _start_of(config: Config) -> Path | None:
    """The adapter to start from, checked as far as that goes before a backbone is downloaded."""
    if config.init_adapter is None:
        return None
    path, method = find_adapter(config), config.method
    own = None
    if METHODS[method.name].has_ranks:
        targets = config.model.target_modules
        own = AdapterConfig(targets, method.max_rank, method.alpha, method.name)
    read_start(path, own, config.init_alpha)
    return path


def ranks_of(config: Config) -> list[int | None]:
    """The ranks to score at the end; [None] for a method without adapters."""
    method = config.method
    if not METHODS[method.name].has_ranks:
        return [None]
    return list(config.evaluate.ranks or range(1, method.max_rank + 1))


def _new_record(config: Config, command: str, model: nn.Module, accelerator: Accelerator) -> Record:
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "schema": SCHEMA,
        "status": "running",
        "signature": signature(config),
        "task": config.task.name,
        "model": config.model.name,
        "method": config.method.name,
        "seed": config.seed,
        "scores": {},
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": without_neutral(config),
        "device": {
            "name": name,
            "threads": torch.get_num_threads(),
            "processes": accelerator.num_processes,
        },
        "parameters": {
            "total": sum(p.numel() for p in model.parameters()),
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "low_rank": sum(t.numel() for n, t in adapter_state(model).items() if ".lora_" in n),
        },
        **provenance(PROJECT),
    }
