"""Progress bars: on a terminal only, and of one process of a run."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tqdm.auto import tqdm

from dylora.training.workers import is_main

T = TypeVar("T")


def bar(total: int, what: str, **settings: Any) -> tqdm:
    """A bar of `total` steps; `settings` are tqdm's."""
    hidden = None if is_main() else True  # None: where the output is no terminal
    return tqdm(total=total, desc=what, disable=hidden, **settings)


def batch_ranks(
    batches: Sequence[T], ranks: Sequence[int | None]
) -> Iterator[tuple[T, Iterator[int | None]]]:
    """Each batch with the ranks to score it at; a bar shows the rank and the time left."""
    with bar(len(batches) * len(ranks), "score", leave=False) as shown:

        def counted() -> Iterator[int | None]:
            for rank in ranks:
                shown.set_postfix_str("" if rank is None else f"rank {rank}", refresh=False)
                yield rank
                shown.update()

        for batch in batches:
            yield batch, counted()
