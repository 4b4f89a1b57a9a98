"""YAML files as dataclasses, with errors that a user can act on. No torch here."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dylora.errors import UserError
from dylora.suite.cli import explain

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML was built with it


def read_yaml(path: Path) -> Any:
    """The content of a file. Raises UserError."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read; mend it ({error})") from error


def typed(schema: type, values: Any) -> Any:
    """`values` as an object of the dataclass `schema`. Raises UserError."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        raise UserError(f"{schema.__name__}: {explain(error)}; mend the file") from error
