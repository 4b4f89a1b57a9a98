"""Mistakes in options are told at once: before any data, model or torch is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_run import compose_config

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`dylora run`, which must answer without importing torch: that takes seconds."""
    command = [sys.executable, "-X", "importtime", "-m", "dylora", "run", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    imported = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(imported) > 50 and not [line for line in imported if line.endswith(" torch")]
    done.stderr = "\n".join(line for line in done.stderr.splitlines() if line not in imported)
    return done


MISTAKES = {
    "train.learning_rat=1": ["train.learning_rate?"],
    "tsk=mrpc": ["did you mean task?"],
    "task=mrcp": ["mrpc", "rte"],
    "method=dyloraa": ["dylora", "head_only"],
    "method.name=LoRA": ["method.name=LoRA", "dylora, lora, ", "head_only"],
    "train.epochs=many": ["train.epochs", "Integer"],
    "train.precision=fp8": ["train.precision", "bf16"],
    "device=gpu": ["device", "cuda"],
    "method.max_rank=0": ["method.max_rank=8"],
    "method.min_rank=9": ["method.min_rank=1"],
    "train.eval_ranks=[1,9]": ["train.eval_ranks", "1..8"],
    "evaluate.ranks=[0]": ["evaluate.ranks", "1..8"],
    "train.select=best": ["mean, max, last"],
    "train.select=5": ["train.eval_ranks=[5]"],
    "train.batch_size=0": ["train.batch_size=0", "at least 1"],
    "method.dropout=1": ["method.dropout"],
    "model=gpt2": ["model=roberta_base"],
    "method=lora method.frozen=true": ["method=dylora"],
    "method.loss=sum method.rank_scope=sample": ["method.rank_scope=step"],
    "model.target_modules=[]": ["model.target_modules=[query,value]"],
    "task.select_metric=bleu": ["accuracy"],
    "task.labels=[a]": ["task.labels"],
    "train.epochs": ["train.epochs"],
    "task.metrics=[BLEU]": ["task.metrics", "accuracy, f1, matthews_correlation"],
    "task.labels=[a,b,c] task.metrics=[accuracy,f1]": ["f1 is for two classes"],
    "task.format=tabel": ["task.format=tabel", "glue, table"],
    "task.format=e2e": ["task.format=e2e", "glue, table"],
    "task.protocol=paper": ["task.protocol=paper", "protocol=released"],
    "task=dart task.protocol=lora": ["task.protocol=lora", "challenge, generation_eval"],
    "task=dart task.metrics=[BLEU,CIDEr]": ["generation_eval of dart", "BLEU, METEOR, TER"],
    "task=e2e task.format=table": ["task.format=table", "e2e, dart, webnlg", "a scorer"],
    "task=cola model=minilm protocol=released": ["protocol=paper", "only for mrpc, rte, stsb"],
    "task=wnli protocol=released": [
        "protocol=paper",
        "conf/recipe/released/roberta_base_wnli.yaml",
    ],
    "dry_run=maybe": ["dry_run=maybe: must be true, json or false"],
    "train.adam_eps=0": ["train.adam_eps", "1e-8"],
    "experiments=table8": ["make tables"],
    "experiments=claims": ["make tables"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_at_once_and_with_its_remedy(mistake: str) -> None:
    done = run("task=mrpc", *mistake.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for words in MISTAKES[mistake]:
        assert words in done.stderr


def test_help_lists_every_group() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    for group in ("method: ", "model: ", "protocol: ", "task: ", "tracker: ", "paths: "):
        assert group in done.stdout
    for choice in ("dylora", "roberta_base", "mrpc", "toy_pair", "minilm", "smoke"):
        assert choice in done.stdout


def composed(*arguments: str) -> str:
    done = run(*arguments, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_task_brings_its_model_and_the_pair_its_recipe() -> None:
    text = composed("task=mrpc", "method=dylora")
    assert "name: roberta_base" in text
    assert "epochs: 30" in text and "learning_rate: 0.0004" in text


def test_a_value_on_the_command_line_wins_over_task_recipe_and_method() -> None:
    text = composed("task=mrpc", "method=full", "model=minilm", "train.learning_rate=0.5")
    assert "name: minilm" in text and "name: roberta_base" not in text
    assert "learning_rate: 0.5" in text


def test_the_protocols_differ_in_settings_and_selection() -> None:
    paper = composed("task=cola")
    released = composed("task=cola", "protocol=released", "method=lora")
    assert "epochs: 30" in paper and "accumulation: 1\n" in paper and "select: last" in paper
    assert "epochs: 80" in released and "accumulation: 2" in released and "select: max" in released


def test_minilm_has_one_setting_for_all_tasks_under_the_papers_protocol() -> None:
    for task in ("cola", "mrpc", "rte", "stsb", "sst2_8k"):
        text = composed(f"task={task}", "model=minilm")
        assert "epochs: 6" in text and "learning_rate: 0.001" in text and "dropout: 0.0" in text


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_gpt2_is_trained_as_by_loras_code(protocol: str) -> None:
    for task in ("e2e", "dart", "webnlg"):
        made = compose_config(f"task={task}", f"protocol={protocol}")
        assert (made.train.max_grad_norm, made.train.adam_eps) == (0.0, 1e-6)
    assert compose_config("task=cola", f"protocol={protocol}").train.adam_eps == 1e-8


def test_roberta_large_has_the_lengths_of_loras_paper() -> None:
    for task, length in {"mnli": 128, "sst2": 128, "cola": 128, "qqp": 512}.items():
        made = compose_config(f"task={task}", "model=roberta_large", "protocol=released")
        assert made.task.max_length == length


def test_recipes_of_generation_reach_every_size() -> None:
    text = composed("task=e2e", "model=gpt2_medium")
    assert "warmup_steps: 500" in text and "alpha: 32" in text and "max_rank: 4" in text
