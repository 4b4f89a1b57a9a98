"""Backbones in few bits, activations computed twice: less memory, the same adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from decoders import TOKENIZER
from small_run import compose_config, make_home, options, record_of, steps_of
from tiny import gpt2, inputs, randomize, roberta
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, RobertaForSequenceClassification

import dylora
from dylora.adapted import adapter_layers
from dylora.suite.config import Dtype, Kind, ModelConfig, PathsConfig, TaskConfig
from dylora.training import experiment
from dylora.training.decode import _in_force
from dylora.training.models import load_backbone

QUANTIZED = ["int8", "nf4"]
Loader = Callable[[str], nn.Module]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], Any]:
    """Loads a tiny model from disk, its weights stored as the option `model.dtype` says."""
    folder = tmp_path_factory.mktemp("backbones")
    # bitsandbytes on a CPU wants multiples of 64.
    for model in (roberta(width=64, intermediate=64), gpt2(width=64)):
        model.save_pretrained(folder / type(model).__name__)
        TOKENIZER.save_pretrained(folder / type(model).__name__)

    def load(kind: Any, dtype: str) -> Any:
        config = ModelConfig(
            name_or_path=str(folder / kind.__name__), dtype=Dtype(dtype), head=["classifier"]
        )
        generates = kind is GPT2LMHeadModel
        task = TaskConfig(kind=Kind.generation if generates else Kind.classification)
        task.labels = ["no", "yes"]
        return load_backbone(config, task, PathsConfig())[0].eval()

    return load


@pytest.mark.parametrize("dtype", ["bf16", *QUANTIZED])
def test_adapter_and_head_stay_float32_on_a_small_backbone(dtype: str, stored: Any) -> None:
    model = stored(RobertaForSequenceClassification, dtype)
    bare = model(inputs()).logits
    dylora.adapt(model, ["query", "value"], max_rank=4)
    trained = {n: p.dtype for n, p in model.named_parameters() if p.requires_grad}
    assert set(trained.values()) == {torch.float32} and any("classifier" in n for n in trained)
    weight = model.roberta.encoder.layer[0].attention.self.query.base.weight
    stored_as = {"bf16": torch.bfloat16, "int8": torch.int8, "nf4": torch.uint8}[dtype]
    assert weight.dtype == stored_as
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        fresh = model(inputs()).logits
        randomize(model)
        changed = model(inputs()).logits
    torch.testing.assert_close(fresh.float(), bare.float(), rtol=2e-2, atol=2e-3)
    assert (changed - fresh).abs().max() > 10 * (fresh - bare).abs().max()


@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("kind", [RobertaForSequenceClassification, GPT2LMHeadModel])
def test_an_export_gives_peft_the_same_logits_on_a_quantized_backbone(
    kind: Any, dtype: str, stored: Any, tmp_path: Path
) -> None:
    """The adapter of GPT-2's fused q and v included, whose Conv1D is a linear layer then."""
    targets = ["c_attn:q,v"] if kind is GPT2LMHeadModel else ["query", "value"]
    model = dylora.adapt(stored(kind, dtype), targets, max_rank=4, alpha=8)
    randomize(model)
    # int8 rounds activations too, so that a last bit can become a step.
    tolerance = 2e-3 if dtype == "int8" else 1e-4
    for rank in (1, 3):
        folder = dylora.export_peft(model, tmp_path / f"r{rank}", rank=rank)
        loaded = peft.PeftModel.from_pretrained(stored(kind, dtype), folder).eval()
        with dylora.at_rank(model, rank):
            expected = model(inputs()).logits
        torch.testing.assert_close(loaded(inputs()).logits, expected, rtol=1e-3, atol=tolerance)
        with dylora.at_rank(model, None):
            assert (model(inputs()).logits - expected).abs().max() > 1.5 * tolerance


def test_quantized_weights_are_not_merged_into(stored: Any) -> None:
    model = dylora.adapt(stored(GPT2LMHeadModel, "nf4"), ["c_attn:q,v"], max_rank=2)
    randomize(model)
    with pytest.raises(dylora.UserError, match="quantized"), dylora.merged(model, 1):
        pass
    with dylora.at_rank(model, 1):
        expected = model(inputs()).logits
    with _in_force(model, 1):  # what decoding uses
        assert torch.equal(model(inputs()).logits, expected)


def test_gradient_checkpointing_keeps_fewer_activations_and_gives_the_same_gradients() -> None:
    def gradients(checkpointing: bool) -> tuple[list[Tensor], int]:
        model = dylora.adapt(roberta(), ["query", "value"], max_rank=4, dropout=0.1)
        randomize(model)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with dylora.at_rank(model.train(), 2):
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = F.cross_entropy(model(inputs()).logits, torch.tensor([0, 1, 1, 0]))
            loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None], kept

    plain, all_kept = gradients(False)
    twice, fewer = gradients(True)
    assert fewer < 0.7 * all_kept
    assert len(plain) == len(twice) and any(g.abs().max() > 0 for g in plain)
    assert all(torch.equal(a, b) for a, b in zip(plain, twice, strict=True))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def test_checkpointing_changes_no_run(home: Path, tmp_path: Path) -> None:
    records = []
    for option in ("false", "true"):
        arguments = [*options(home, tmp_path / option), f"train.gradient_checkpointing={option}"]
        records.append(experiment.run(compose_config(*arguments)))
    assert records[0]["signature"] == records[1]["signature"]
    assert records[0]["scores"] == records[1]["scores"]
    assert steps_of(tmp_path / "false") == steps_of(tmp_path / "true")


def test_an_adapter_trained_on_four_bits_loads_on_the_full_backbone(tmp_path: Path) -> None:
    """QDyLoRA's setting (arXiv 2402.10462), from options to a record."""
    options = ["scale=smoke", "train.epochs=2", "model.dtype=nf4", f"paths.results={tmp_path}"]
    made = compose_config(*options)
    record = experiment.run(made)
    assert record_of(tmp_path)["status"] == "done"
    assert list(record["scores"]) == [str(rank) for rank in range(1, 9)]
    made.model.dtype = Dtype.fp32
    full, _ = load_backbone(made.model, made.task, made.paths)
    before = full(inputs(length=12)).logits
    dylora.load_adapter(full, next(tmp_path.glob("records/*/adapter.safetensors")), rank=2)
    assert adapter_layers(full) and not torch.equal(full(inputs(length=12)).logits, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.dtype=bf16"], "train.precision=bf16"),
        (["model.dtype=nf4", "method=full"], "method=full"),
    ],
)
def test_a_dtype_that_cannot_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(dylora.UserError, match=message):
        compose_config(*arguments)
