"""An adapter sorted by singular values: the same at full rank, the best at every other."""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from tiny import gpt2, inputs, randomize, roberta
from torch import nn

import dylora
from dylora.adapted import adapter_layers, low_rank_parts
from dylora.svd import DAMPING, kept_adapter, recorded_moments, sort_components

ROOT = Path(__file__).parents[1]
MODELS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "roberta": (roberta, ["query", "value"]),
    "gpt2-fused": (gpt2, ["c_attn:q,v"]),
    "gpt2-conv1d": (gpt2, ["c_attn"]),
}


def adapted(name: str, max_rank: int = 4, method: Any = "lora") -> nn.Module:
    build, targets = MODELS[name]
    torch.manual_seed(1)
    model = dylora.adapt(build(), targets, max_rank=max_rank, alpha=6, method=method)
    randomize(model)
    return model


def deltas(model: nn.Module, rank: int) -> dict[str, np.ndarray]:
    """By layer, and part of a fused one: the delta (out, in) at a rank."""
    found = {}
    with dylora.at_rank(model, rank), torch.no_grad():
        for name, layer in adapter_layers(model).items():
            parts = layer.parts.items() if hasattr(layer, "parts") else [("", layer.low_rank)]
            for part, low_rank in parts:
                found[f"{name}.{part}".removesuffix(".")] = low_rank.delta().numpy()
    return found


@pytest.mark.parametrize("method", ["lora", "dylora"])
@pytest.mark.parametrize("name", MODELS)
def test_full_rank_is_the_same_and_lower_ranks_are_numpys_truncated_svd(
    name: str, method: str, tmp_path: Path
) -> None:
    model = adapted(name, method=method)
    spectrum = dylora.sort_by_svd(model, tmp_path / "sorted.safetensors")
    made = dylora.load_adapter(MODELS[name][0](), tmp_path / "sorted.safetensors")
    assert made.adapter_config.method == "lora"
    torch.testing.assert_close(made(inputs()).logits, model(inputs()).logits, rtol=1e-4, atol=1e-4)
    full = deltas(model, 4)
    assert spectrum.values.keys() == full.keys()
    energies = []
    for rank in range(1, 5):
        for layer, delta in deltas(made, rank).items():
            U, values, Vh = np.linalg.svd(full[layer].astype(np.float64))
            best = (U[:, :rank] * values[:rank]) @ Vh[:rank]
            np.testing.assert_allclose(delta, best, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(spectrum.values[layer], values[:4], rtol=1e-5)
            kept = (best**2).sum() / (full[layer] ** 2).sum()
            assert spectrum.kept_of(layer)[rank - 1] == pytest.approx(kept, rel=1e-5)
        best = deltas(made, rank)
        energies.append(sum((d**2).sum() for d in best.values()))
    assert spectrum.kept == pytest.approx(np.array(energies) / energies[-1], rel=1e-5)
    assert spectrum.kept[0] < 0.9


def test_a_file_and_its_model_are_sorted_alike(tmp_path: Path) -> None:
    model = adapted("roberta")
    file = dylora.save_adapter(model, tmp_path / "unsorted.safetensors")
    first = dylora.sort_by_svd(model, tmp_path / "a.safetensors")
    second = dylora.sort_by_svd(file, tmp_path / "b.safetensors")
    assert first.kept == second.kept
    tensors = [load_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_a_peft_adapter_is_sorted_and_exported_at_a_lower_rank(tmp_path: Path) -> None:
    options = {"r": 4, "lora_alpha": 6, "target_modules": ["query"], "task_type": "SEQ_CLS"}
    torch.manual_seed(2)
    theirs = peft.get_peft_model(roberta(), peft.LoraConfig(**options, init_lora_weights=False))
    theirs.save_pretrained(tmp_path / "theirs")
    dylora.sort_by_svd(tmp_path / "theirs", tmp_path / "sorted.safetensors")
    ours = dylora.load_adapter(roberta(), tmp_path / "sorted.safetensors", rank=2)
    dylora.export_peft(tmp_path / "sorted.safetensors", tmp_path / "r2", rank=2)
    exported = peft.PeftModel.from_pretrained(roberta(), tmp_path / "r2").eval()
    torch.testing.assert_close(exported(inputs()).logits, ours(inputs()).logits)
    with dylora.at_rank(ours, 4):
        torch.testing.assert_close(ours(inputs()).logits, theirs.eval()(inputs()).logits)


def test_a_rank_above_the_layers_width_is_sorted_too(tmp_path: Path) -> None:
    model = adapted("roberta", max_rank=40)  # of layers 32 wide
    spectrum = dylora.sort_by_svd(model, tmp_path / "sorted.safetensors")
    made = dylora.load_adapter(roberta(), tmp_path / "sorted.safetensors")
    torch.testing.assert_close(made(inputs()).logits, model(inputs()).logits, rtol=1e-4, atol=1e-4)
    assert spectrum.kept[31] == pytest.approx(1) and len(spectrum.kept) == 40


def test_an_untrained_adapter_loses_nothing(tmp_path: Path) -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=3)
    spectrum = dylora.sort_by_svd(model, tmp_path / "sorted.safetensors")
    assert spectrum.kept == [1, 1, 1]
    made = dylora.load_adapter(roberta(), tmp_path / "sorted.safetensors")
    made(inputs()).logits.sum().backward()
    layer = next(iter(adapter_layers(made).values())).low_rank
    assert layer.lora_B.grad.abs().max() > 0  # it can still learn


def test_the_product_is_never_formed(tmp_path: Path) -> None:
    wide = 300_000  # squared: 360 GB
    state = {"layer.lora_A": torch.randn(2, wide), "layer.lora_B": torch.randn(wide, 2)}
    torch.save(state, tmp_path / "wide.pt")
    spectrum = dylora.sort_by_svd(tmp_path / "wide.pt", tmp_path / "sorted.safetensors", alpha=2)
    assert spectrum.kept[1] == pytest.approx(1)


def test_a_model_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dylora.UserError, match="only low-rank adapters can be sorted"):
        dylora.sort_by_svd(roberta(), tmp_path / "sorted.safetensors")


def script(patch: pytest.MonkeyPatch, *arguments: str) -> None:
    path = str(ROOT / "scripts" / "sort_by_svd.py")
    patch.setattr(sys, "argv", [path, *arguments])
    runpy.run_path(path, run_name="__main__")


def test_the_script_prints_the_spectrum_and_writes_an_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = dylora.save_adapter(adapted("roberta"), tmp_path / "unsorted.safetensors")
    script(monkeypatch, str(file), f"output={tmp_path / 'sorted.safetensors'}")
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("   4")]
    assert last[0].split() == ["4", "100.0", "100.0", "100.0", "100.0"]
    assert dylora.load_adapter(roberta(), tmp_path / "sorted.safetensors", rank=1)
    with pytest.raises(SystemExit) as stopped:
        script(monkeypatch, str(tmp_path), f"output={tmp_path / 'none.safetensors'}")
    assert stopped.value.code == 2 and f"error: {tmp_path} is no" in capsys.readouterr().err
    assert not (tmp_path / "none.safetensors").exists()


def test_the_documented_spectrum_is_that_of_the_released_file(
    shared_data: Path, tmp_path: Path
) -> None:
    file = shared_data / "checkpoints" / "roberta_base_lora_mnli.bin"
    spectrum = dylora.sort_by_svd(file, tmp_path / "sorted.safetensors", alpha=16)
    page = (ROOT / "docs" / "import.md").read_text()
    rows = re.findall(r"^\| (\d) \|(.*)\|$", page, re.MULTILINE)
    layers = [spectrum.kept_of(layer) for layer in spectrum.values]
    for number, (rank, cells) in enumerate(rows):
        at_rank = [layer[number] for layer in layers]
        kept = (spectrum.kept[number], min(at_rank), sum(at_rank) / 24, max(at_rank))
        assert [float(cell) for cell in cells.split("|")] == [round(100 * k, 1) for k in kept]
        assert int(rank) == number + 1
    assert len(rows) == 8


def batch_loss(model: nn.Module) -> torch.Tensor:
    """The loss of a batch of made-up texts and labels."""
    return model(inputs(), labels=torch.tensor([0, 1, 0, 1])).loss


def numpy_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0) + DAMPING * values.mean())) @ vectors.T


@pytest.mark.parametrize("gradients", [False, True])
def test_weighted_components_are_numpys_svd_between_the_roots_of_the_moments(
    gradients: bool,
) -> None:
    model = adapted("roberta")
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for name, part in low_rank_parts(model).items():

        def hook(module: nn.Module, x: Any, out: torch.Tensor, name: str = name) -> None:
            out.register_hook(lambda g: seen.setdefault(name, []).append((x[0].detach(), g)))

        part.register_forward_hook(hook)
    with recorded_moments(model) as moments:
        for _ in range(2):
            batch_loss(model).backward()
    full = deltas(model, 4)
    sort_components(model, moments, gradients)
    for name, matrix in full.items():
        x, g = (torch.cat([p[i].flatten(0, 1) for p in seen[name]]).double() for i in (0, 1))
        right = numpy_root((x.T @ x).numpy())
        left = numpy_root((g.T @ g).numpy()) if gradients else np.eye(len(matrix))
        U, values, Vh = np.linalg.svd(left @ matrix.astype(np.float64) @ right)
        for rank in range(1, 4):
            cut = deltas(model, rank)[name].astype(np.float64)
            best = (U[:, :rank] * values[:rank]) @ Vh[:rank]
            np.testing.assert_allclose(left @ cut @ right, best, rtol=1e-3, atol=2e-4 * values[0])
        np.testing.assert_allclose(deltas(model, 4)[name], matrix, rtol=1e-4, atol=1e-5)


def test_sorting_inside_kept_adapter_leaves_every_bit() -> None:
    model = adapted("gpt2-fused")
    before = {name: tensor.clone() for name, tensor in dylora.adapter_state(model).items()}
    with kept_adapter(model):
        sort_components(model)
        assert any(not torch.equal(before[n], t) for n, t in dylora.adapter_state(model).items())
    assert all(torch.equal(before[n], t) for n, t in dylora.adapter_state(model).items())


@pytest.mark.parametrize("weighted", [False, True])
def test_sorted_components_are_balanced_for_training_to_go_on(weighted: bool) -> None:
    model = adapted("roberta")
    with recorded_moments(model) as moments:
        batch_loss(model).backward()
    sort_components(model, moments if weighted else None)
    for part in low_rank_parts(model).values():
        torch.testing.assert_close(part.lora_A.norm(dim=1), part.lora_B.norm(dim=0))
    untrained = dylora.adapt(roberta(), ["query"], max_rank=3)
    sort_components(untrained)
    assert all(p.isfinite().all() for p in untrained.parameters())


def test_a_layer_without_moments_is_named() -> None:
    with pytest.raises(dylora.UserError, match=r"no moments of roberta\.encoder"):
        sort_components(adapted("roberta"), {})
