"""The head: what is trained in full beside an adapter, because it is named or because it is new."""

from collections.abc import Sequence

from torch import nn

from dylora.errors import UserError

# Names that transformers gives to the heads of classification and question answering.
HEADS = ("classifier", "score", "qa_outputs", "classification_head")

MARK = "_is_hf_initialized"  # transformers' own, on modules and tensors


def head_module(head: Sequence[str], name: str) -> str | None:
    """The outermost module on the way to `name` whose name ends in one of `head`, or None.

    The ending need not start at a dot, as in PEFT's `modules_to_save`: "classifier" is DistilBERT's
    "pre_classifier" too.
    """
    parts = name.split(".")
    paths = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next((path for path in paths if path.endswith(tuple(head))), None)


def new_modules(model: nn.Module) -> list[str]:
    """Names of the modules with weights that `from_pretrained` did not find in the checkpoint.

    transformers marks each module that it has made ready, and each tensor that it has read. A model
    that was built from its configuration has no marked tensors, and so no new module.
    """
    if not any(hasattr(parameter, MARK) for parameter in model.parameters()):
        return []
    return [
        name
        for name, module in model.named_modules()
        if hasattr(module, MARK)
        and not all(hasattr(parameter, MARK) for parameter in module.parameters(recurse=False))
    ]


def whole_head(model: nn.Module, head: Sequence[str]) -> list[str]:
    """`head` and what else belongs to it: what `from_pretrained` has newly initialized.

    Frozen that would stay random, unsaved another random one in each loaded model. Raises UserError
    naming a module that is new inside the backbone, and a head that was quantized.
    """
    added = [name for name in new_modules(model) if head_module(head, name) is None]
    backbone = {id(module) for module in getattr(model, "base_model", model).modules()}
    for name in added:
        if id(model.get_submodule(name)) in backbone:
            raise UserError(
                f"{name or type(model).__name__} is newly initialized: the checkpoint has no such "
                f'weights, and frozen they would stay random. Add "{name}" to head= to train it, '
                "or load the model without it"
            )
    names = [*head, *added]
    for name, module in _modules_of(model, names).items():
        if not all(parameter.is_floating_point() for parameter in module.parameters()):
            raise UserError(f"{name} is quantized and cannot be trained: leave it unquantized")
    return names


def freeze_all_but(model: nn.Module, head: Sequence[str]) -> None:
    """Only the modules of `whole_head` stay trainable, in float32; raises UserError as it does."""
    names = whole_head(model, head)
    model.requires_grad_(False)
    for module in _modules_of(model, names).values():
        module.float().requires_grad_(True)


def _modules_of(model: nn.Module, head: Sequence[str]) -> dict[str, nn.Module]:
    return {
        name: module for name, module in model.named_modules() if head_module(head, name) == name
    }
