"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real datasets in their original files (DYLORA_TEST_DATA overrides it)."""
    folder = Path(os.environ.get("DYLORA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real datasets absent: {folder} (set DYLORA_TEST_DATA to their folder)")
    return folder
