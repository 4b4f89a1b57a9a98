"""Scores of every rank in the Hugging Face Trainer, and DyLoRA in TRL's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from tiny import VOCABULARY, gpt2
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from trainers import (
    LABELS,
    MAX_RANK,
    ROW,
    SAMPLER,
    TOKENS,
    Steps,
    accuracy,
    adapted,
    arguments,
    same,
    trainer,
    watch,
)
from transformers import (
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from trl import SFTConfig, SFTTrainer

import dylora
from dylora.adapter import adapter_state
from dylora.integrations import DyLoRACallback, RankedTrainer
from dylora.rank import rank_state


def test_evaluation_scores_every_rank_in_one_entry_of_the_log(tmp_path: Path) -> None:
    model = adapted()
    run = trainer(tmp_path, model, RankedTrainer, eval_strategy="epoch", max_steps=12)
    run.train()
    assert [entry["step"] for entry in run.state.log_history if "eval_loss" in entry] == [6, 12]
    metrics = run.evaluate()
    accuracies, losses = [], []
    for rank in range(1, MAX_RANK + 1):
        with dylora.at_rank(model, rank), torch.no_grad():
            logits = model(TOKENS).logits
        accuracies.append((logits.argmax(-1) == LABELS).double().mean().item())
        losses.append(F.cross_entropy(logits, LABELS).item())
        assert metrics[f"eval_accuracy_r{rank}"] == accuracies[-1]
        assert metrics[f"eval_loss_r{rank}"] == pytest.approx(losses[-1])
    assert len({*losses}) == MAX_RANK
    assert metrics["eval_accuracy_mean"] == pytest.approx(np.mean(accuracies))
    assert metrics["eval_loss_mean"] == pytest.approx(np.mean(losses))
    assert metrics["eval_accuracy"] == accuracies[-1]
    assert metrics["eval_loss"] == pytest.approx(losses[-1])
    entry = run.state.log_history[-1]
    assert entry["eval_loss_r1"] == metrics["eval_loss_r1"]
    assert not [name for name in metrics if "time_r" in name or "runtime_" in name]


def test_predictions_are_those_of_the_rank_in_force(tmp_path: Path) -> None:
    model = adapted()
    run = trainer(tmp_path, model, RankedTrainer)
    run.train()
    for rank in (MAX_RANK, 2):
        with dylora.at_rank(model, rank), torch.no_grad():
            expected = model(TOKENS).logits
            output = run.predict(ROW)
        np.testing.assert_allclose(output.predictions, expected, rtol=1e-5)
        assert output.metrics["test_loss"] == output.metrics[f"test_loss_r{rank}"]
        assert "test_loss_r1" in output.metrics
        assert rank_state(model).rank == MAX_RANK


def test_only_the_named_ranks_are_scored(tmp_path: Path) -> None:
    model = adapted()
    run = trainer(tmp_path, model, RankedTrainer, options={"eval_ranks": [3, 1]})
    seen = watch(model)
    metrics = run.evaluate()
    scored = {name for name in metrics if name.startswith("eval_loss")}
    assert scored == {"eval_loss", "eval_loss_r1", "eval_loss_r3", "eval_loss_mean"}
    assert list(dict.fromkeys(rank for _, rank in seen)) == [1, 3, MAX_RANK]


def test_each_of_several_datasets_is_scored_at_every_rank(tmp_path: Path) -> None:
    run = trainer(tmp_path, kind=RankedTrainer)
    metrics = run.evaluate({"a": ROW[:8], "b": ROW[8:]})
    ranks = range(1, MAX_RANK + 1)
    assert {f"eval_{name}_accuracy_r{b}" for name in "ab" for b in ranks} <= metrics.keys()


@pytest.mark.parametrize("name", ["eval_accuracy_r1", "eval_accuracy_mean"])
def test_a_rank_or_the_mean_can_choose_the_best_checkpoint(name: str, tmp_path: Path) -> None:
    steps = Steps()
    run = trainer(
        tmp_path,
        kind=RankedTrainer,
        callbacks=[steps],
        metric_for_best_model=name,
        load_best_model_at_end=True,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=2,
        save_steps=2,
        learning_rate=3e-2,
    )
    run.train()
    values = {e["step"]: e[name] for e in run.state.log_history if name in e}
    best = max(values, key=values.__getitem__)
    assert best < 12  # else the last adapter would do as well
    assert run.state.best_metric == values[best]
    assert same(adapter_state(run.model), steps.adapters[best])


def test_every_pass_gathers_as_seq2seq_trainers_do(tmp_path: Path) -> None:
    class Ranked(RankedTrainer, Seq2SeqTrainer):
        gathers: list[Any]

        def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
            self.gathers.append(self.gather_function)
            return super().prediction_step(*args, **kwargs)

    settings = Seq2SeqTrainingArguments(**arguments(tmp_path))
    run = Ranked(model=adapted(), args=settings, eval_dataset=ROW, compute_metrics=accuracy)
    run.gathers = []
    assert "eval_accuracy_r1" in run.evaluate()
    assert len(run.gathers) == 3 * MAX_RANK
    assert all(gather == run.accelerator.gather for gather in run.gathers)


OF_TRL = pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")


def sft_trainer(folder: Path, model: nn.Module, kind: type[SFTTrainer], **changes: Any) -> Any:
    words = {f"w{i}": i for i in range(3, VOCABULARY)}
    vocabulary = {"<end>": 0, "<pad>": 1, "<unk>": 2, **words}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")),
        eos_token="<end>",
        pad_token="<pad>",
    )
    rows = Dataset.from_dict({"input_ids": TOKENS.tolist(), "labels": TOKENS.tolist()})
    return kind(
        model=model,
        args=SFTConfig(**arguments(folder, gradient_accumulation_steps=2, **changes)),
        train_dataset=rows,
        eval_dataset=rows.select(range(8)),
        processing_class=tokenizer,
        callbacks=[DyLoRACallback(SAMPLER)],
    )


@OF_TRL
def test_trl_trains_and_scores_every_rank(tmp_path: Path) -> None:
    """Its own metrics, which it collects over all passes, belong to the rank that they have."""

    class Ranked(RankedTrainer, SFTTrainer):
        pass

    model = dylora.adapt(gpt2(), ["c_attn:q,v"], max_rank=MAX_RANK)
    seen = watch(model.transformer)
    run = sft_trainer(tmp_path, model, Ranked, max_steps=10, bf16=False, learning_rate=0.1)
    run.train()
    trained = [rank for training, rank in seen if training]
    assert trained == [SAMPLER(step) for step in range(10) for _ in range(2)]
    metrics = run.evaluate()
    accuracies, losses = {}, []
    for rank in range(1, MAX_RANK + 1):
        with dylora.at_rank(model, rank), torch.no_grad():
            logits = model(TOKENS[:8]).logits[:, :-1]
        accuracies[rank] = (logits.argmax(-1) == TOKENS[:8, 1:]).double().mean().item()
        losses.append(F.cross_entropy(logits.flatten(0, 1), TOKENS[:8, 1:].flatten()).item())
        assert metrics[f"eval_mean_token_accuracy_r{rank}"] == pytest.approx(accuracies[rank])
        assert metrics[f"eval_loss_r{rank}"] == pytest.approx(losses[-1], rel=1e-4)
    assert len({*accuracies.values()}) > 1
    assert metrics["eval_mean_token_accuracy"] == pytest.approx(accuracies[MAX_RANK])
    assert "eval_entropy_r1" in metrics
    assert "eval_num_tokens_r1" not in metrics


@OF_TRL
def test_trl_resumes_from_its_checkpoints(tmp_path: Path) -> None:
    """With a fused layer and tied embeddings, in bf16 and with gradient checkpointing."""
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4}
    states = []
    for checkpoint in (None, str(tmp_path / "checkpoint-4")):
        model = dylora.adapt(gpt2(), ["c_attn:q,v"], max_rank=MAX_RANK)
        run = sft_trainer(tmp_path, model, SFTTrainer, **settings)
        assert run.args.bf16
        assert run.args.gradient_checkpointing
        run.train(resume_from_checkpoint=checkpoint)
        states.append(adapter_state(model))
    assert same(*states)
    file = tmp_path / "checkpoint-6" / "adapter.safetensors"
    loaded = adapter_state(dylora.load_adapter(gpt2(), file))
    assert same(loaded, states[0])
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
