"""Singular values of the deltas that runs kept, from their adapter files. No torch here."""

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dylora.files import ADAPTER
from dylora.methods import METHODS
from dylora.results.runs import Problem, Run


def readable_spectra(run: Run, problems: list[Problem]) -> dict[int, np.ndarray]:
    """As `singular_values`; an adapter that cannot be read is added to `problems`."""
    try:
        return singular_values(run)
    except (SafetensorError, OSError, KeyError) as error:
        path = run.folder / ADAPTER
        problems.append(Problem(path, f"cannot be read ({error}); run again with force=true"))
        return {}


def singular_values(run: Run) -> dict[int, np.ndarray]:
    """Per rank b in 1, 2, 4, ..., r_max the singular values (layers, b) of every delta.

    A delta is B[:, :b] diag(w) A[:b], with the weights in use of the run's method. Empty if the
    run's folder holds no adapter (it is not in git).
    """
    path = run.folder / ADAPTER
    if not path.is_file() or not run.max_rank:
        return {}
    tensors = load_file(path)
    pairs = [
        (tensors[name.removesuffix("A") + "B"], tensors[name])
        for name in sorted(tensors)
        if name.endswith("lora_A")
    ]
    top, alpha = run.max_rank, run.option("method.alpha")
    found = {}
    for b in sorted({*(2**i for i in range(top.bit_length())), top}):
        weights = METHODS[run.method].weights(b, top, alpha)
        found[b] = np.stack([_product_spectrum(B[:, :b] * weights, A[:b]) for B, A in pairs])
    return found


def _product_spectrum(B: np.ndarray, A: np.ndarray) -> np.ndarray:
    """The b singular values of B A, from the small matrix between two QR factorizations."""
    left, right = np.linalg.qr(B).R, np.linalg.qr(A.T).R
    values = np.linalg.svd(left @ right.T, full_matrices=False, compute_uv=False)
    return np.pad(values, (0, len(A) - len(values)))  # a rank above the layer's width adds zeros
