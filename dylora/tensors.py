"""A safetensors file that equal tensors and facts always give the same bytes of."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from dylora.errors import UserError
from dylora.files import whole_file

CHECKSUM = "sha256"  # among the metadata, of all the rest of the file


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
    header["__metadata__"][CHECKSUM] = _digest(header, memoryview(content)[8 + length :])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    path = Path(path)
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(content)[8 + length :])
    return path


def check_tensors(path: Path) -> None:
    """Raise UserError if a file of `write_tensors` is no longer what was written.

    A flipped bit would else be read as another weight. Files without checksum pass.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    known = header.get("__metadata__", {}).get(CHECKSUM)
    if known is not None and known != _digest(header, memoryview(content)[8 + length :]):
        raise UserError(f"{path} is damaged: its checksum is wrong; make or copy it again")


def _digest(header: dict[str, Any], tensors: memoryview) -> str:
    rest = {k: v for k, v in header["__metadata__"].items() if k != CHECKSUM}
    digest = hashlib.sha256(json.dumps({**header, "__metadata__": rest}, sort_keys=True).encode())
    digest.update(tensors)
    return digest.hexdigest()
