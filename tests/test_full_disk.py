"""A disk that takes no more ends a run with one message; what is there stays, and it goes on."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_disk import inside
from small_run import config, make_home
from tiny import roberta
from transformers import RobertaTokenizer

import dylora
from dylora.errors import UserError
from dylora.files import make_folder, write_text, writing
from dylora.suite.lock import locked
from dylora.training import experiment
from dylora.training.checkpoint import STATE, load_checkpoint, save_checkpoint
from dylora.training.decode_log import DecodeLog
from dylora.training.divergence import diverged


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Within the block the kernel refuses to let any file grow beyond so many bytes."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@pytest.mark.slow
def test_a_run_on_a_full_disk_goes_on_as_the_disk_grows(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    whole = experiment.run(config(home, tmp_path / "whole"))
    (adapter,) = (tmp_path / "whole").glob("records/*/adapter.safetensors")
    (tmp_path / "disk").mkdir()
    seen = inside(home, tmp_path / "disk")
    assert len(seen["tries"]) > 3
    for tried in seen["tries"]:
        assert "cannot be written: No space left on device (0.0 MB free there)" in tried["said"]
        assert "type the command again" in tried["said"]
        assert not tried["unfinished"]
    last = seen["tries"][-1]
    assert (last["statuses"], last["reasons"]) == (["failed"], [last["said"]])
    assert STATE in last["checkpoints"], "there was nothing to go on from"
    assert seen["scores"] == whole["scores"]
    assert bytes.fromhex(seen["adapter"]) == adapter.read_bytes()
    assert "cannot be written: Read-only file system" in seen["readonly"]


def test_what_cannot_grow_leaves_what_was_there(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=2)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    parts = (model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), None)
    save_checkpoint(tmp_path, *parts, {"step": 1})
    adapter = dylora.save_adapter(model, tmp_path / "adapter.safetensors")
    words = RobertaTokenizer.from_pretrained(make_home(tmp_path_factory.mktemp("home")) / "model")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with no_file_above(1000):
        for write in (
            lambda: save_checkpoint(tmp_path, *parts, {"step": 2}),
            lambda: dylora.save_adapter(model, adapter),
            lambda: diverged("the loss is inf", model, [], tmp_path, 1, 1, 1e-3),
            lambda: write_text(tmp_path / "record.json", "x" * 2000),
            lambda: make_folder(tmp_path / "made", lambda f: (f / "a").write_text("x" * 2000)),
            lambda: make_folder(tmp_path / "made", roberta().save_pretrained),
            lambda: make_folder(tmp_path / "made", words.save_pretrained),
            lambda: dylora.export_peft(adapter, tmp_path / "peft", 1),
            lambda: dylora.export_merged(model, tmp_path / "full", 1),
        ):
            with pytest.raises(UserError, match=r"cannot be written: File too large .*MB free"):
                write()
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert load_checkpoint(tmp_path, *parts) == {"step": 1}


def test_a_decode_that_cannot_be_noted_keeps_the_texts_before(tmp_path: Path) -> None:
    log = DecodeLog(tmp_path / "test.jsonl", "key")
    log.append({0: "an inn"})
    with (
        no_file_above(150),
        pytest.raises(UserError, match=r"test\.jsonl cannot be written: File too large"),
    ):
        log.append({1: "a pub", 2: "a bar" * 50})
    assert DecodeLog(tmp_path / "test.jsonl", "key").texts == {0: "an inn", 1: "a pub"}


def test_a_file_in_place_of_the_results_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with (
        pytest.raises(UserError, match=r"results/locks/a-run cannot be written: Not a directory"),
        locked(tmp_path / "results" / "records" / "a-run"),
    ):
        pass


def test_a_quota_is_told_from_mistakes_in_a_program(tmp_path: Path) -> None:
    quota, absent = (OSError(n, os.strerror(n)) for n in (errno.EDQUOT, errno.ENOENT))
    with pytest.raises(UserError, match="Disk quota exceeded"), writing(tmp_path / "a"):
        raise quota
    with pytest.raises(FileNotFoundError), writing(tmp_path / "a"):
        raise absent
