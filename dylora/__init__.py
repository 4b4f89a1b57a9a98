"""DyLoRA: train a low-rank adapter once, use it at every rank (arXiv 2210.07558).

>>> import dylora
>>> model = dylora.adapt(model, target_modules=["query", "value"], max_rank=8, alpha=16)
>>> sampler = dylora.RankSampler(max_rank=8, seed=1)
>>> with dylora.at_rank(model, sampler(step)):
...     loss = model(**batch).loss
>>> dylora.save_adapter(model, "adapter.safetensors")

Names are imported on first use, so that `import dylora` costs nothing and the parts of the suite
that only read records never load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dylora.adapted import adapter_layers, hold_untrained_rows, merged
    from dylora.adapter import adapt, adapter_state, load_adapter, save_adapter
    from dylora.allocation import allocate
    from dylora.errors import UserError
    from dylora.export import export_merged, export_peft
    from dylora.nested import load_nested, nest
    from dylora.overview import Overview, RankScores, evaluate_ranks, summary
    from dylora.rank import at_rank, set_rank
    from dylora.sampler import RankSampler
    from dylora.start import warm_start
    from dylora.svd import Spectrum, sort_by_svd

__version__ = "0.1.0"

_HOME = {
    "adapt": "dylora.adapter",
    "adapter_layers": "dylora.adapted",
    "adapter_state": "dylora.adapter",
    "load_adapter": "dylora.adapter",
    "merged": "dylora.adapted",
    "save_adapter": "dylora.adapter",
    "allocate": "dylora.allocation",
    "UserError": "dylora.errors",
    "export_merged": "dylora.export",
    "export_peft": "dylora.export",
    "load_nested": "dylora.nested",
    "nest": "dylora.nested",
    "Overview": "dylora.overview",
    "RankScores": "dylora.overview",
    "evaluate_ranks": "dylora.overview",
    "summary": "dylora.overview",
    "RankSampler": "dylora.sampler",
    "at_rank": "dylora.rank",
    "hold_untrained_rows": "dylora.adapted",
    "set_rank": "dylora.rank",
    "Spectrum": "dylora.svd",
    "sort_by_svd": "dylora.svd",
    "warm_start": "dylora.start",
}

__all__ = [
    "Overview",
    "RankSampler",
    "RankScores",
    "Spectrum",
    "UserError",
    "adapt",
    "adapter_layers",
    "adapter_state",
    "allocate",
    "at_rank",
    "evaluate_ranks",
    "export_merged",
    "export_peft",
    "hold_untrained_rows",
    "load_adapter",
    "load_nested",
    "merged",
    "nest",
    "save_adapter",
    "set_rank",
    "sort_by_svd",
    "summary",
    "warm_start",
]


def __getattr__(name: str) -> Any:
    if name == "integrations":  # a module, which needs the Trainer
        return import_module("dylora.integrations")
    if name not in _HOME:
        raise AttributeError(f"module 'dylora' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    special = {name for name in globals() if name.startswith("__")}
    return sorted({*special, *__all__, "integrations"})
