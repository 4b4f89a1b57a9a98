"""scripts/export_adapter.py: from a run to folders that PEFT, transformers and the hub take."""

import json
import random
import re
import runpy
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from decoders import byte_tokenizer, decoder
from hub_uploads import serve_uploads
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file
from small_run import WORDS, compose_config
from table_records import write_run
from tiny import inputs, randomize, roberta, save_roberta
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import dylora
from dylora.suite.config import DecodeConfig
from dylora.training import experiment
from dylora.training.causal import encode_prompts
from dylora.training.models import load_backbone

SCRIPT = str(Path(__file__).parents[1] / "scripts" / "export_adapter.py")
LABELS = ["low", "high", "none"]
Script = Callable[..., str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Run the script in this process; returns what it prints, or its error message after "!"."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
        capsys.readouterr()
        try:
            runpy.run_path(SCRIPT, run_name="__main__")
        except SystemExit as end:
            assert end.code == 2
            return "!" + capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a real run with three classes on a tiny model, and its configuration."""
    home = tmp_path_factory.mktemp("trained")
    save_roberta(home / "model", [" ".join(WORDS)] * 3)
    draw = random.Random(1)
    rows = [f"{' '.join(draw.choices(WORDS, k=4))},{LABELS[i % 3]}\n" for i in range(30)]
    for split in ("train", "validation"):
        (home / f"{split}.csv").write_text("text,label\n" + "".join(rows))
    made = compose_config(
        "task=custom",
        "task.name=words",
        f"task.folder={home}",
        f"task.labels=[{','.join(LABELS)}]",
        "model.name=tiny",
        f"model.name_or_path={home / 'model'}",
        "method.max_rank=3",
        "train.epochs=3",
        "train.batch_size=5",
        "train.learning_rate=0.02",
        f"paths.results={home / 'results'}",
        "device=cpu",
    )
    experiment.run(made, "python run.py task=custom")
    (folder,) = (home / "results" / "records").iterdir()
    low, high = (expected_logits((folder, made), inputs(), rank) for rank in (1, 2))
    assert not torch.allclose(low, high, atol=1e-3), "else a wrong rank would go unnoticed"
    return folder, made


def expected_logits(trained: tuple[Path, Any], x: torch.Tensor, rank: int) -> torch.Tensor:
    folder, made = trained
    model, _ = load_backbone(made.model, made.task, made.paths)
    dylora.load_adapter(model.eval(), folder / "adapter.safetensors", rank=rank)
    return model(x).logits


def test_all_ranks_become_peft_folders_with_the_runs_logits(
    trained: tuple[Path, Any], script: Script, tmp_path: Path
) -> None:
    printed = script(trained[0], "rank=all", f"output={tmp_path}")
    assert [line.partition(":")[0] for line in printed.splitlines()] == [
        str(tmp_path / f"r{rank}") for rank in (1, 2, 3)
    ]
    index = json.loads((tmp_path / "ranks.json").read_text())
    assert index["max_lora_rank"] == 3
    record = json.loads((trained[0] / "record.json").read_text())
    for rank, listed in zip((1, 2, 3), index["ranks"], strict=True):
        folder = tmp_path / f"r{rank}"
        assert (listed["name"], listed["rank"], listed["r"]) == (folder.name, rank, rank)
        assert listed["scores"] == record["scores"][str(rank)]
        tensors = load_file(folder / "adapter_model.safetensors")
        assert listed["parameters"] == sum(tensor.numel() for tensor in tensors.values())
        assert listed["bytes"] == (folder / "adapter_model.safetensors").stat().st_size
        loaded = peft.AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3)
        assert loaded.peft_config["default"].r == rank
        expected = expected_logits(trained, inputs(), rank)
        torch.testing.assert_close(loaded.eval()(inputs()).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_place_is_beside_the_record_and_a_second_export_replaces_the_first(
    trained: tuple[Path, Any], script: Script
) -> None:
    for _ in range(2):
        script(trained[0] / "record.json", "rank=[3,1]")
    assert sorted(p.name for p in (trained[0] / "export").iterdir()) == ["r1", "r3", "ranks.json"]
    assert sorted(p.name for p in (trained[0] / "export" / "r1").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_auto_takes_the_smallest_rank_within_the_tolerance(
    trained: tuple[Path, Any], script: Script, tmp_path: Path
) -> None:
    script(trained[0], "rank=auto", "tolerance=100", f"output={tmp_path}")
    assert [p.name for p in tmp_path.iterdir()] == ["r1"]


def test_a_merged_folder_is_a_model_with_tokenizer_and_label_names(
    trained: tuple[Path, Any], script: Script, tmp_path: Path
) -> None:
    script(trained[0], "rank=2", "merged=true", f"output={tmp_path}")
    folder = tmp_path / "r2-merged"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {label: number for number, label in enumerate(LABELS)}
    x = AutoTokenizer.from_pretrained(folder)(["cat red moon", "dog"], padding=True)
    logits = model(**{name: torch.tensor(rows) for name, rows in x.items()}).logits
    _, made = trained
    backbone, tokenizer = load_backbone(made.model, made.task, made.paths)
    assert dict(tokenizer(["cat red moon", "dog"], padding=True)) == dict(x)
    dylora.load_adapter(backbone.eval(), trained[0] / "adapter.safetensors", rank=2)
    expected = backbone(**{name: torch.tensor(rows) for name, rows in x.items()}).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def code_of(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("merged", [False, True])
def test_the_code_in_the_card_runs(
    trained: tuple[Path, Any], script: Script, tmp_path: Path, merged: bool
) -> None:
    script(trained[0], "rank=2", f"merged={merged}", f"output={tmp_path}")
    (card,) = tmp_path.glob("*/README.md")
    found = code_of(card)
    assert len(found) == (1 if merged else 2)
    names: dict[str, Any] = {"TEXT": "cat moon"}
    for block in found:
        exec(block, names)
        ids = names["tokenizer"]("cat moon", return_tensors="pt")["input_ids"]
        expected = expected_logits(trained, ids, 2)
        torch.testing.assert_close(names["model"](ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert names["answer"] == LABELS[expected.argmax()]


def generation_run(tmp_path: Path) -> Path:
    """A made-up record on E2E beside a real adapter of a tiny GPT-2, saved with its tokenizer."""
    backbone = tmp_path / "backbone"
    decoder().float().save_pretrained(backbone)
    byte_tokenizer().save_pretrained(backbone)
    model = AutoModelForCausalLM.from_pretrained(backbone)
    randomize(dylora.adapt(model, ["c_attn:q,v"], max_rank=4, alpha=8))
    folder = write_run(
        tmp_path,
        "e2e",
        model="own_gpt2",
        max_rank=4,
        model__name_or_path=str(backbone),
        model__architecture="decoder",
        model__target_modules=["c_attn:q,v"],
        task__decode=DecodeConfig(beams=2, max_new_tokens=5),
    )
    dylora.save_adapter(model, folder / "adapter.safetensors")
    return folder


def test_a_generation_run_gives_a_card_whose_code_writes_text(
    script: Script, tmp_path: Path
) -> None:
    folder = generation_run(tmp_path)
    script(folder, "rank=2")
    with_peft, with_transformers = code_of(folder / "export" / "r2" / "README.md")
    names: dict[str, Any] = {"TEXT": "a : 1"}
    exec(with_peft, names)
    tokenizer = names["tokenizer"]
    assert names["inputs"]["input_ids"].tolist() == encode_prompts(["a : 1"], tokenizer)
    assert isinstance(names["answer"], str)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    dylora.load_adapter(model.eval(), folder / "adapter.safetensors", rank=2)
    x = names["inputs"]["input_ids"]
    torch.testing.assert_close(names["model"](x).logits, model(x).logits, rtol=1e-4, atol=1e-4)
    exec(with_transformers, names)
    torch.testing.assert_close(names["model"](x).logits, model(x).logits, rtol=1e-4, atol=1e-4)


MISTAKES = {
    "no rank": ([], "say which rank"),
    "rank zero": (["rank=0"], "rank=0: the run has ranks 1 to 3"),
    "rank too high": (["rank=[1,4]"], "rank=4: the run has ranks 1 to 3"),
    "rank no number": (["rank=foo"], "rank=foo: the run has ranks 1 to 3"),
    "rank true": (["rank=true"], "rank=True: the run has ranks"),
    "no ranks": (["rank=[]"], "rank=[]: the run has ranks"),
    "auto with no such metric": (["rank=auto", "metric=f1"], "metric=f1: the run has accuracy"),
    "backbone": (["rank=1", "base_model=/no/such"], "base_model=/no/such: no such folder"),
    "other option": (["ranks=1"], "did you mean rank?"),
    "push nowhere": (["rank=1", "push=true"], "push=true needs repo=USER/NAME"),
    "push to no user": (["rank=1", "push=true", "repo=me"], "push=true needs repo=USER/NAME"),
    "push many": (["rank=all", "push=true", "repo=me/x"], "one rank to one repository"),
    "push a local base": (["rank=1", "push=true", "repo=me/x"], "is a folder of this machine"),
    "repo alone": (["rank=1", "repo=me/x"], "options of push=true"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_message_and_writes_nothing(
    trained: tuple[Path, Any], script: Script, tmp_path: Path, mistake: str
) -> None:
    arguments, said = MISTAKES[mistake]
    printed = script(trained[0], *arguments, f"output={tmp_path / 'out'}")
    assert printed.startswith("!error: ") and said in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "adapter.safetensors: is not there"),
        ({"method": "full", "scores": {0: 0.9}}, "method=full has no ranks"),
        ({"method": "head_only", "scores": {0: 0.9}}, "method=head_only has no ranks"),
        ({"record": {"status": "interrupted"}}, "interrupted; finish it first"),
    ],
)
def test_a_run_that_cannot_be_exported_says_which_command_helps(
    script: Script, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    printed = script(write_run(tmp_path, **changes), "rank=1")
    assert printed.startswith("!error: ") and said in printed
    assert "has no ranks" in said or "python run.py task=mrpc" in printed


def test_an_unknown_run_is_named(script: Script) -> None:
    assert "no/such/run: no such run" in script("no/such/run", "rank=1")
    assert "name a run" in script()


def test_a_folder_with_other_files_is_left_alone(
    trained: tuple[Path, Any], script: Script, tmp_path: Path
) -> None:
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / "thesis.txt").write_text("mine")
    assert "has other files in it" in script(trained[0], "rank=1", f"output={tmp_path}")
    assert [p.name for p in (tmp_path / "r1").iterdir()] == ["thesis.txt"]


def test_merging_into_another_backbone_is_refused(
    trained: tuple[Path, Any], script: Script, tmp_path: Path
) -> None:
    roberta(labels=3).save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(trained[1].model.name_or_path).save_pretrained(tmp_path / "other")
    options = ("rank=1", "merged=true", f"base_model={tmp_path / 'other'}")
    printed = script(trained[0], *options, f"output={tmp_path / 'out'}")
    assert "adapter.safetensors does not fit this model" in printed


def test_a_backbone_that_is_gone_is_asked_for(
    trained: tuple[Path, Any], script: Script, tmp_path: Path
) -> None:
    folder = generation_run(tmp_path)
    (tmp_path / "backbone").rename(tmp_path / "moved")
    printed = script(folder, "rank=1", "merged=true")
    assert f"{tmp_path / 'backbone'}" in printed and "base_model=FOLDER" in printed
    assert "r1-merged" in script(
        folder, "rank=1", "merged=true", f"base_model={tmp_path / 'moved'}"
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the hub's stand-in received, by the call's path."""
    with serve_uploads() as (url, received):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield received


PUSH = ("rank=2", "push=true", "repo=me/words", "base_model=me/base", "license=mit")


def test_push_sends_the_folder_in_one_commit(
    trained: tuple[Path, Any], script: Script, tmp_path: Path, hub: dict[str, Any]
) -> None:
    printed = script(trained[0], *PUSH, f"output={tmp_path}")
    assert f"sent: {constants.ENDPOINT}/me/words/commit/1" in printed
    assert hub["token"] == "Bearer hf_secret"
    created = json.loads(hub["repos/create"])
    assert (created["organization"], created["name"]) == ("me", "words")
    assert created.get("private") or created.get("visibility") == "private"
    lines = [json.loads(line) for line in hub["models/me/words/commit/main"].splitlines()]
    sent = {x["value"]["path"]: x["value"]["content"] for x in lines if x["key"] == "file"}
    files = {path.name: path.read_bytes() for path in (tmp_path / "r2").iterdir()}
    assert {path: b64decode(content) for path, content in sent.items()} == files
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.license) == ("me/base", "mit")
    assert 'from_pretrained("me/words"' in card.text
    assert str(trained[1].model.name_or_path) not in b"".join(files.values()).decode("latin1")


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(
    trained: tuple[Path, Any],
    script: Script,
    tmp_path: Path,
    hub: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    printed = script(trained[0], *PUSH, "dry_run=true", f"output={tmp_path}")
    assert not hub
    assert f"{constants.ENDPOINT}/me/words (private if new)" in printed
    for path in (tmp_path / "r2").iterdir():
        assert f"{path.stat().st_size} bytes  {path.name}" in printed
    assert "base_model: me/base" in printed


def test_push_without_token_or_network_is_one_message(
    trained: tuple[Path, Any],
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "hf auth login" in script(trained[0], *PUSH, f"output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    printed = script(trained[0], *PUSH, f"output={tmp_path / 'out'}")
    assert "was written but not sent to http://127.0.0.1:9/me/words" in printed
