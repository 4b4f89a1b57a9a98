"""A whole run, from options to record, on a user's own table and a tiny random model."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import (
    ROOT,
    config,
    epochs_of,
    make_home,
    options,
    record_of,
    steps_of,
    write_table,
)

import dylora
from dylora.adapter import read_adapter
from dylora.errors import UserError
from dylora.suite.history import read_steps
from dylora.suite.lock import locked
from dylora.suite.records import is_trial, run_folder
from dylora.suite.signals import Interrupted
from dylora.training import experiment
from dylora.training.models import load_backbone


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def test_a_run_leaves_a_record_with_all_that_tables_need(home: Path, tmp_path: Path) -> None:
    record = experiment.run(config(home, tmp_path))
    assert record_of(tmp_path) == json.loads(json.dumps(record))
    top = {k: record[k] for k in ("status", "task", "model", "method", "seed", "schema")}
    assert top == {
        "status": "done",
        "task": "words",
        "model": "tiny",
        "method": "dylora",
        "seed": 1,
        "schema": 2,
    }
    assert list(record["scores"]) == ["1", "2", "3"]
    assert all(0 <= s["accuracy"] <= 1 for s in record["scores"].values())
    assert [point.step for point in steps_of(tmp_path)] == list(range(12))
    assert {point.rank for point in steps_of(tmp_path)} <= {1, 2, 3}
    assert {(row.epoch, row.step, row.rank) for row in epochs_of(tmp_path)} == {
        (epoch, 6 * epoch, rank) for epoch in (1, 2) for rank in (1, 2, 3)
    }
    assert set(record["times"]) == {"prepare", "train", "evaluate"}
    assert record["peak_memory_bytes"]["host"] > 10**8
    rows = 2 * 2 * (16 + 16) * 3  # layers x targets x (in + out) x max_rank
    assert record["parameters"]["low_rank"] == rows
    assert record["packages"]["torch"] and record["config"]["method"]["max_rank"] == 3


def test_git_does_not_see_a_trial_and_sees_other_runs(home: Path, tmp_path: Path) -> None:
    trial = config(home, tmp_path, "task.max_eval_rows=8")
    experiment.run(trial)
    assert (run_folder(trial) / ".gitignore").read_text() == "*\n"
    whole = config(home, tmp_path, "train.max_steps=5")  # steps may be what a recipe says
    assert is_trial(trial) and not is_trial(whole)
    whole.task.toy = True
    assert is_trial(whole)


def test_predictions_of_every_rank_are_kept_and_give_the_scores(home: Path, tmp_path: Path) -> None:
    record = experiment.run(config(home, tmp_path))
    outputs = next(tmp_path.glob("records/*/outputs"))
    labels = (outputs / "validation.labels.txt").read_text().split()
    assert len(labels) == 30 and set(labels) == {"good", "bad"}
    for rank in ("1", "2", "3"):
        predicted = (outputs / f"validation.rank{rank}.txt").read_text().split()
        right = sum(p == t for p, t in zip(predicted, labels, strict=True)) / 30
        assert record["scores"][rank]["accuracy"] == pytest.approx(right)


def test_the_kept_adapter_gives_the_recorded_predictions(home: Path, tmp_path: Path) -> None:
    made = config(home, tmp_path, "train.learning_rate=0.02", "train.epochs=8")
    experiment.run(made)
    folder = next(tmp_path.glob("records/*"))
    torch.manual_seed(123)
    model, tokenizer = load_backbone(made.model, made.task, made.paths)
    dylora.load_adapter(model, folder / "adapter.safetensors", rank=2)
    lines = (home / "data" / "validation.csv").read_text().splitlines()[1:]
    texts = [line.split(",")[0] for line in lines]
    with torch.inference_mode():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        predicted = model.eval()(**batch).logits.argmax(-1).tolist()
    kept = (folder / "outputs" / "validation.rank2.txt").read_text().split()
    assert [["bad", "good"][p] for p in predicted] == kept
    assert set(kept) == {"good", "bad"}


def test_the_same_command_again_says_that_it_is_done(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = config(home, tmp_path)
    first = experiment.run(made)
    capsys.readouterr()
    assert experiment.run(made) == json.loads(json.dumps(first))
    printed = capsys.readouterr().out
    assert "done already" in printed and "record.json" in printed and "force=true" in printed


def test_force_runs_again_with_the_same_result(home: Path, tmp_path: Path) -> None:
    first = experiment.run(config(home, tmp_path))
    steps = steps_of(tmp_path)
    again = experiment.run(config(home, tmp_path, "force=true"))
    assert again["started"] >= first["started"] and again["times"] != first["times"]
    assert again["scores"] == first["scores"]
    assert steps_of(tmp_path) == steps


def test_a_forced_run_that_stops_leaves_the_old_result_and_goes_on_when_repeated(
    home: Path, tmp_path: Path
) -> None:
    first = experiment.run(config(home, tmp_path))
    files = {f: f.read_bytes() for f in tmp_path.glob("records/*/**/*") if f.is_file()}
    real_loss, calls = experiment.classification.loss, []

    def stop(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 9:
            signal.raise_signal(signal.SIGINT)
        return real_loss(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.classification, "loss", stop)
        with pytest.raises(Interrupted):
            experiment.run(config(home, tmp_path, "force=true"))
        assert all(file.read_bytes() == content for file, content in files.items())
        again = experiment.run(config(home, tmp_path, "force=true"))
    assert len(calls) == 12, "it began anew"
    assert again["scores"] == first["scores"]
    assert record_of(tmp_path)["started"] == again["started"]
    assert not list(tmp_path.glob("forced/*"))


def test_a_run_that_another_process_has_is_refused(home: Path, tmp_path: Path) -> None:
    made = config(home, tmp_path)
    with locked(run_folder(made)), pytest.raises(UserError, match="is being run by process"):
        experiment.run(made)
    assert not run_folder(made).exists()


def test_another_seed_is_another_run(home: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        experiment.run(config(home, tmp_path, f"seed={seed}"))
    first, second = (read_steps(folder) for folder in tmp_path.glob("records/*"))
    assert first != second


@pytest.mark.parametrize("method", ["full", "head_only"])
def test_methods_without_ranks_have_one_score(home: Path, tmp_path: Path, method: str) -> None:
    record = experiment.run(config(home, tmp_path, f"method={method}"))
    assert list(record["scores"]) == ["0"]
    trained, total = record["parameters"]["trained"], record["parameters"]["total"]
    assert trained == total if method == "full" else trained < total / 2
    assert record["parameters"]["low_rank"] == 0


def test_an_interrupted_run_is_resumed_to_the_same_scores(home: Path, tmp_path: Path) -> None:
    expected = experiment.run(config(home, tmp_path / "whole"))
    made = config(home, tmp_path / "parts")
    real_loss, calls = experiment.classification.loss, []

    def stop_in_the_second_epoch(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 9:
            signal.raise_signal(signal.SIGINT)
        return real_loss(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment.classification, "loss", stop_in_the_second_epoch)
        experiment.run(made)
    assert record_of(tmp_path / "parts")["status"] == "interrupted"
    assert steps_of(tmp_path / "parts") == steps_of(tmp_path / "whole")[:9]
    record = experiment.run(made)
    assert record["status"] == "done" and record["scores"] == expected["scores"]
    assert steps_of(tmp_path / "parts") == steps_of(tmp_path / "whole")
    assert not list(tmp_path.glob("parts/records/*/checkpoint"))


def test_a_failure_is_kept_in_the_record(home: Path, tmp_path: Path) -> None:
    made = config(home, tmp_path, "train.learning_rate=1e30", "train.max_grad_norm=0")
    with pytest.raises(UserError, match="loss is"):
        experiment.run(made)
    assert steps_of(tmp_path)[0].step == 0  # what there was before it failed
    record = record_of(tmp_path)
    assert record["status"] == "failed" and "train.learning_rate" in record["error"]


def test_a_start_from_another_run_takes_its_adapter_and_not_its_head(
    home: Path, tmp_path: Path
) -> None:
    experiment.run(config(home, tmp_path, "train.learning_rate=0.02"))
    start = next(tmp_path.glob("records/*/adapter.safetensors"))
    made = config(home, tmp_path, f"init_adapter={start}", "seed=5")
    torch.manual_seed(5)
    backbone, _ = load_backbone(made.model, made.task, made.paths)
    model = experiment._trainable(backbone, made, steps=1)
    head = model.classifier.dense.weight.clone()
    dylora.warm_start(model, start)
    trained = dylora.load_adapter(load_backbone(made.model, made.task, made.paths)[0], start)
    for name, tensor in dylora.adapter_state(model).items():
        if ".lora_" in name:
            assert torch.equal(tensor, dylora.adapter_state(trained)[name])
    assert torch.equal(model.classifier.dense.weight, head)
    assert not torch.equal(trained.classifier.dense.weight, head)


def loralib_file(file: Path, rank: int) -> dict[str, torch.Tensor]:
    """A state dict as loralib saves it, for the query and value layers of the tiny model."""
    layers = [f"roberta.encoder.layer.{n}.attention.self" for n in range(2)]
    shapes = {"lora_A": (rank, 16), "lora_B": (16, rank)}
    torch.manual_seed(0)
    state = {
        f"{layer}.{name}.{matrix}": torch.randn(shape)
        for layer in layers
        for name in ("query", "value")
        for matrix, shape in shapes.items()
    }
    torch.save(state, file)
    return state


def test_a_run_starts_from_a_loralib_file_with_its_scaling(home: Path, tmp_path: Path) -> None:
    state = loralib_file(tmp_path / "lora.pt", rank=3)
    start = (f"init_adapter={tmp_path / 'lora.pt'}", "init_alpha=8")
    experiment.run(config(home, tmp_path, *start, "train.max_steps=1", "train.learning_rate=1e-9"))
    tensors, _ = read_adapter(next(tmp_path.glob("records/*")))
    for name, tensor in state.items():
        ratio = 8 / 16 if name.endswith("lora_B") else 1  # of init_alpha to method.alpha
        torch.testing.assert_close(tensors[name], ratio * tensor)


def test_a_start_that_does_not_fit_is_refused_before_the_backbone_is_looked_for(
    home: Path, tmp_path: Path
) -> None:
    loralib_file(tmp_path / "lora.pt", rank=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "ia3").mkdir()
    (tmp_path / "ia3" / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    options = ["model.name_or_path=absent", f"init_adapter={tmp_path / 'lora.pt'}"]
    for more, message in (
        ([], "init_alpha=16"),
        (["init_alpha=8"], r"lora\.pt has rank 2.*method\.max_rank=2"),
        (["init_alpha=8", "method=full"], r"lora\.pt is a low-rank adapter"),
        (
            ["init_alpha=8", "method.max_rank=2", "model.target_modules=[key]"],
            r"lora\.pt does not adapt key.*model\.target_modules=\[query,value\]",
        ),
        ([f"init_adapter={tmp_path / 'empty'}"], "the folder has neither adapter.safetensors"),
        ([f"init_adapter={tmp_path / 'ia3'}"], "of type IA3"),
    ):
        with pytest.raises(UserError, match=message):
            experiment.run(config(home, tmp_path / "results", *options, *more))
    with pytest.raises(UserError, match="init_adapter=FILE, which is not set"):
        config(home, tmp_path, "init_alpha=8")
    assert not (tmp_path / "results").exists()


def test_a_missing_start_names_the_run_to_make(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)init_adapter=mnli.*dylora run task=mnli"):
        experiment.run(config(home, tmp_path, "init_adapter=mnli"))
    assert not list(tmp_path.iterdir())


BAD_DATA = {
    "missing column": (b"words,label\ncat,good\n", "text"),
    "empty file": (b"", "empty"),
    "unknown label": (b"text,label\ncat,good\ndog,ugly\n", "ugly"),
    "non-UTF-8": (b"text,label\ncat,good\n\xff,bad\n", "UTF-8"),
}


@pytest.mark.parametrize("fault", BAD_DATA)
def test_bad_data_is_one_clear_error_and_leaves_nothing(
    home: Path, tmp_path: Path, fault: str
) -> None:
    content, word = BAD_DATA[fault]
    data = tmp_path / "data"
    data.mkdir()
    write_table(data / "validation.csv", 4, seed=0)
    (data / "train.csv").write_bytes(content)
    with pytest.raises(UserError, match=word) as caught:
        experiment.run(config(home, tmp_path / "results", f"task.folder={data}"))
    assert "train.csv" in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_model_that_is_nowhere_says_which_option_to_set(home: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no_model"
    with pytest.raises(UserError, match=r"model\.name_or_path="):
        experiment.run(config(home, tmp_path, f"model.name_or_path={missing}"))


@pytest.mark.slow
def test_a_terminated_process_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "run.py", *options(home, tmp_path), "train.epochs=100000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("records/*/checkpoint")) and time.monotonic() < deadline:
            time.sleep(0.2)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run again to go on" in errors and "Traceback" not in errors
    assert record_of(tmp_path)["status"] == "interrupted"
    assert list(tmp_path.glob("records/*/checkpoint/state.pt"))
