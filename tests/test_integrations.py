"""DyLoRA in the Hugging Face Trainer: ranks, checkpoints, several processes, our own loop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from conftest import ROOT
from tiny import roberta
from torch import nn
from trainers import (
    LABELS,
    MAX_RANK,
    ROW,
    ROWS,
    SAMPLER,
    SEED,
    TOKENS,
    Steps,
    adapted,
    same,
    trainer,
    watch,
)

import dylora
from dylora.adapter import adapter_state, read_adapter
from dylora.errors import UserError
from dylora.integrations import RankedTrainer
from dylora.rank import rank_state
from dylora.suite.config import MethodConfig, RankScope, TrainConfig
from dylora.training.batching import training_batches
from dylora.training.loop import train
from dylora.training.step import Objective


@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_forward_pass_has_the_rank_of_its_optimizer_step(
    accumulation: int, tmp_path: Path
) -> None:
    """Also in the short last window of an epoch, and although evaluation comes in between."""
    model = adapted()
    seen = watch(model)
    run = trainer(
        tmp_path,
        model,
        data=ROW[:20],  # five micro-batches: with two to a step the third step has one
        max_steps=-1,
        num_train_epochs=3,
        gradient_accumulation_steps=accumulation,
        eval_strategy="steps",
        eval_steps=2,
    )
    run.train()
    windows = {1: [1] * 15, 2: [2, 2, 1] * 3}[accumulation]
    expected = [SAMPLER(step) for step, size in enumerate(windows) for _ in range(size)]
    assert [rank for training, rank in seen if training] == expected
    assert len({*expected}) == MAX_RANK
    evaluated = [rank for training, rank in seen if not training]
    assert evaluated == [MAX_RANK] * len(evaluated)
    assert len(evaluated) >= 4
    assert rank_state(model).rank == MAX_RANK


def own_loop(folder: Path, accumulation: int, strict_freeze: bool, per_example: bool) -> nn.Module:
    """What `dylora.training.loop` makes of the rows in two epochs."""
    objective = Objective(
        [{"row": row, "length": 6} for row in range(ROWS)],
        lambda rows: {k: v[[r["row"] for r in rows]] for k, v in batch.items()},
        lambda model, b: F.cross_entropy(model(input_ids=b["input_ids"]).logits, b["labels"]),
        lambda model, ranks: {rank: {"score": 0.0} for rank in ranks},
        "score",
    )
    batch = {"input_ids": TOKENS, "labels": LABELS}
    config = TrainConfig(
        epochs=2,
        batch_size=4,
        accumulation=accumulation,
        learning_rate=1e-2,
        weight_decay=0.1,
        warmup_steps=2,
        max_grad_norm=0.5,
        select="last",
    )
    scope = RankScope.sample if per_example else RankScope.step
    method = MethodConfig("dylora", MAX_RANK, rank_scope=scope, strict_freeze=strict_freeze)
    model = adapted()
    train(model, objective, config, method, SEED, folder, Accelerator(cpu=True))
    return model


@pytest.mark.parametrize(
    ("accumulation", "strict_freeze", "per_example"),
    [(1, False, False), (2, False, False), (2, True, False), (1, False, True), (2, False, True)],
)
def test_the_trainer_gives_the_adapter_that_our_own_loop_gives(
    accumulation: int, strict_freeze: bool, per_example: bool, tmp_path: Path
) -> None:
    ours = own_loop(tmp_path / "ours", accumulation, strict_freeze, per_example)
    order = [
        row
        for epoch in range(2)
        for rows in training_batches([6] * ROWS, 4, SEED, epoch)
        for row in rows
    ]
    model = adapted()
    start = {name: tensor.clone() for name, tensor in adapter_state(model).items()}
    run = trainer(
        tmp_path / "theirs",
        model,
        strict_freeze=strict_freeze,
        per_example=per_example,
        data=[ROW[i] for i in order],
        max_steps=-1,
        num_train_epochs=1,
        gradient_accumulation_steps=accumulation,
        weight_decay=0.1,
        warmup_steps=2,
        max_grad_norm=0.5,
    )
    run.train()
    assert run.state.global_step == 12 // accumulation
    for name, tensor in adapter_state(ours).items():
        theirs = adapter_state(model)[name]
        assert torch.equal(theirs, tensor), name
        assert not torch.equal(theirs, start[name])


def test_training_resumed_from_a_checkpoint_ends_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """Dropout included, from the middle of an epoch and of the Trainer's own checkpoint."""
    settings = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 5}
    whole = adapted(dropout=0.1)
    ranks = watch(whole)
    trainer(tmp_path, whole, max_steps=9, **settings).train()
    other = dylora.adapt(roberta(seed=3), ["query", "value"], MAX_RANK, dropout=0.1)
    rest = watch(other)
    run = trainer(tmp_path, other, max_steps=9, **settings)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert rest == ranks[10:]
    assert rest == [(True, SAMPLER(step)) for step in range(5, 9) for _ in range(2)]
    assert same(adapter_state(other), adapter_state(whole))


def test_every_checkpoint_has_the_adapter_of_its_step(tmp_path: Path) -> None:
    steps = Steps()
    run = trainer(tmp_path, callbacks=[steps], max_steps=6, save_strategy="steps", save_steps=2)
    run.train()
    for step in (2, 4, 6):
        file = tmp_path / f"checkpoint-{step}" / "adapter.safetensors"
        loaded = dylora.load_adapter(roberta(), file)
        assert same(adapter_state(loaded), steps.adapters[step])
    assert not same(steps.adapters[2], steps.adapters[6])


def test_mistakes_end_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapter"):
        trainer(tmp_path, roberta()).train()
    with pytest.raises(UserError, match="no adapter"):
        trainer(tmp_path, roberta(), RankedTrainer)
    with pytest.raises(UserError, match="method='lora'"):
        trainer(tmp_path, adapted(method="lora")).train()
    bigger = dylora.adapt(roberta(), ["query"], max_rank=8)
    with pytest.raises(UserError, match="up to 4, the adapter's max_rank is 8"):
        trainer(tmp_path, bigger).train()
    with pytest.raises(UserError, match=r"eval_ranks has 5; the adapter's ranks are 1\.\.4"):
        trainer(tmp_path, kind=RankedTrainer, options={"eval_ranks": [1, 5]})
    for name in ("eval_loss_r1", "eval_loss_mean"):
        run = trainer(tmp_path, kind=RankedTrainer, metric_for_best_model=name)
        with pytest.raises(UserError, match="greater_is_better=False"):
            run.train()
    sharded = adapted()
    lora_A = sharded.get_parameter("roberta.encoder.layer.1.attention.self.value.low_rank.lora_A")
    lora_A.data = lora_A.data.flatten()  # as FSDP and ZeRO-3 keep it
    with pytest.raises(UserError, match="share the adapter"):
        trainer(tmp_path, sharded).train()
    assert not list(tmp_path.iterdir())


WORKER = """
import sys
from pathlib import Path
from trainers import adapted, trainer, watch
import dylora
folder = Path(sys.argv[1])
model = adapted()
seen = watch(model)
run = trainer(folder, model, per_device_train_batch_size=2, max_steps=6)
run.train()
ranks = [rank for training, rank in seen if training]
(folder / f"ranks{run.args.process_index}.txt").write_text(str(ranks))
if run.is_world_process_zero():
    dylora.save_adapter(model, folder / "adapter.safetensors")
run.end()
"""


@pytest.mark.slow
def test_two_processes_draw_the_same_ranks_and_train_the_adapter_of_one(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*command, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for worker in (0, 1):
        ranks = (tmp_path / f"ranks{worker}.txt").read_text()
        assert ranks == str([SAMPLER(step) for step in range(6)])
    alone = adapted()
    trainer(tmp_path, alone, max_steps=6).train()
    together, start = read_adapter(tmp_path / "adapter.safetensors")[0], adapter_state(adapted())
    for name, tensor in adapter_state(alone).items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-5)
        assert not torch.equal(tensor, start[name])
