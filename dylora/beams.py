"""A rank for each example in `generate`, whose batch has a row for each beam of an example."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from torch import Tensor, nn

from dylora.errors import UserError

_examples: ContextVar[int | None] = ContextVar("examples", default=None)  # of a running generate
_blocks: Counter[nn.Module] = Counter()  # how many blocks of `counting` a model is in
_lock = threading.Lock()


def ranks_of_rows(ranks: Tensor, rows: int) -> Tensor:
    """The ranks (rows,) of a batch for `ranks` (examples,); UserError unless each has one.

    An example is a row; only in a `generate` that `counting` sees it may be several, next to each
    other: its beams, or the answers that it is asked for.
    """
    examples = _examples.get() or rows
    copies, rest = divmod(rows, examples)
    if len(ranks) != examples or rest:
        raise UserError(f"{len(ranks)} ranks for a batch of {rows if rest else examples} examples")
    return ranks if copies == 1 else ranks.repeat_interleave(copies)


@contextmanager
def counting(model: nn.Module) -> Iterator[None]:
    """Inside the block `model.generate`, where there is one, counts the examples it is given."""
    if not hasattr(type(model), "generate"):
        yield
        return
    with _lock:
        if not _blocks[model]:
            generate: Any = model.generate
            model.generate = partial(_generate, generate)  # type: ignore[assignment]
        _blocks[model] += 1
    try:
        yield
    finally:
        with _lock:
            _blocks[model] -= 1
            if not _blocks[model]:
                del model.generate, _blocks[model]


def _generate(generate: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    given = [kwargs.get("input_ids"), *args, *kwargs.values()]
    sizes = [len(value) for value in given if isinstance(value, Tensor)]
    token = _examples.set(sizes[0] if sizes else 1)
    try:
        return generate(*args, **kwargs)
    finally:
        _examples.reset(token)
