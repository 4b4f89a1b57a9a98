"""Files that a disk has cut or changed are named, and what is still whole is used."""

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import config, make_home, record_of
from tiny import roberta

import dylora
from dylora.errors import UserError
from dylora.suite.signals import Interrupted
from dylora.training import experiment, loop
from dylora.training.checkpoint import FORMER, STATE, load_checkpoint, save_checkpoint
from dylora.training.decode_log import DecodeLog


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def parts() -> tuple[Any, ...]:
    model = dylora.adapt(roberta(), ["query"], max_rank=2)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    return model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), None


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    for step in (1, 2):
        save_checkpoint(tmp_path, *parts(), {"step": step})
    return tmp_path


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    checkpoints: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_checkpoint(checkpoints, *parts()) == {"step": 2}
    path = checkpoints / STATE
    if damage == "flip":
        flip(path, path.read_bytes().index(b"trained"))
    elif damage == "cut":
        cut(path)
    else:
        path.write_bytes(b"")
    assert load_checkpoint(checkpoints, *parts()) == {"step": 1}
    assert f"{path} is damaged" in capsys.readouterr().out
    cut(checkpoints / FORMER)
    with pytest.raises(UserError, match="delete it to begin anew"):
        load_checkpoint(checkpoints, *parts())


def test_no_flipped_bit_of_a_checkpoint_is_taken_for_a_weight(checkpoints: Path) -> None:
    path, draw = checkpoints / STATE, random.Random(1)
    whole = path.read_bytes()
    model, *rest = parts()
    load_checkpoint(checkpoints, model, *rest)
    expected = {name: tensor.clone() for name, tensor in dylora.adapter_state(model).items()}
    for _ in range(60):
        path.write_bytes(whole)
        flip(path, draw.randrange(len(whole)))
        if load_checkpoint(checkpoints, model, *rest) == {"step": 2}:
            found = dylora.adapter_state(model)
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_kill_between_the_two_renames_leaves_the_former_checkpoint(checkpoints: Path) -> None:
    (checkpoints / STATE).unlink()
    assert load_checkpoint(checkpoints, *parts()) == {"step": 1}


def test_a_flipped_bit_of_an_adapter_is_named(tmp_path: Path) -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=2)
    path = dylora.save_adapter(model, tmp_path / "adapter.safetensors")
    dylora.load_adapter(roberta(), path)
    flip(path, path.stat().st_size - 9)
    with pytest.raises(UserError, match=r"adapter\.safetensors is damaged"):
        dylora.load_adapter(roberta(), path)


def test_a_damaged_line_of_a_decode_is_named_and_what_is_before_it_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "test.jsonl"
    log = DecodeLog(path, "key")
    log.append({0: "an inn", 1: "a pub", 2: "a bar"})
    path.write_text(path.read_text().replace("a pub", "a cub"))
    assert DecodeLog(path, "key").texts == {0: "an inn"}
    assert f"{path}, line 3 is damaged" in capsys.readouterr().out
    assert DecodeLog(path, "key").texts == {0: "an inn"}


def test_checkpoints_are_as_often_as_asked_and_that_changes_no_signature(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    often = config(home, tmp_path / "results", "train.checkpoint_seconds=0")
    seldom = config(home, tmp_path / "results")
    real, saved = loop.save_checkpoint, []

    def save(*arguments: Any) -> None:
        saved.append(1)
        real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        experiment.run(often)
        assert len(saved) == 12 + 2, "after every step and every epoch"
    assert experiment.run(seldom)["status"] == "done", "it is the same run"


def test_a_run_that_is_terminated_while_it_scores_goes_on_with_what_it_has_learnt(
    tmp_path: Path,
) -> None:
    home = make_home(tmp_path)
    expected = experiment.run(config(home, tmp_path / "whole"))
    made = config(home, tmp_path / "parts")
    real_loss, losses = experiment.classification.loss, []

    def loss(*arguments: Any) -> torch.Tensor:
        losses.append(1)
        return real_loss(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.classification, "loss", loss)
        with patch.context() as inner, pytest.raises(Interrupted):
            inner.setattr(experiment.classification, "evaluate", _terminate)
            experiment.run(made)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert record_of(tmp_path / "parts")["status"] == "interrupted"
        record = experiment.run(made)
    assert len(losses) == 12, "it was trained twice"
    assert record["scores"] == expected["scores"]


def _terminate(*arguments: Any) -> None:
    signal.raise_signal(signal.SIGTERM)
