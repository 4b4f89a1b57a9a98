"""A safetensors file that equal tensors and facts always give the same bytes of."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from dylora.errors import UserError
from dylora.files import whole_file


def write_tensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: str | Path
) -> Path:
    """Write tensors and metadata, whole or not at all; returns the path.

    safetensors itself writes metadata in a random order. Raises UserError naming a tensor that
    holds values that are not finite.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{name} has values that are not finite; it is not saved")
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    length = int.from_bytes(content[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(content[8 : 8 + length])}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    path = Path(path)
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(content)[8 + length :])
    return path
