"""`import dylora`: what it brings, and what it does not make a user wait for or install."""

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dylora
from dylora.errors import UserError

ROOT = Path(__file__).parents[1]
OF_THE_SUITE = (
    "accelerate",
    "datasets",
    "evaluate",
    "hydra",
    "omegaconf",
    "peft",
    "scipy",
    "sklearn",
)
GIVEN = """
import importlib.util
for name in {absent}:
    assert importlib.util.find_spec(name) is None, name + " is there"
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

def backbone():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return RobertaForSequenceClassification(RobertaConfig(vocab_size=50, **sizes))

model, fresh_model, other_model = (backbone() for _ in range(3))
batches = [{{"input_ids": torch.randint(3, 50, (4, 9)), "labels": torch.ones(4).long()}}] * 3
loader = batches

def metric(logits, labels):
    return (logits.argmax(-1) == labels).float().mean().item()
"""


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh Python has loaded after `code`."""
    command = [sys.executable, "-c", f"import sys, dylora\n{code}\nprint(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_import_loads_nothing_and_every_function_little() -> None:
    assert "torch" not in loaded_by("")
    of_peft = ("nest", "load_nested")  # for models of PEFT, which then is there
    own = [name for name in dylora.__all__ if name not in of_peft]
    modules = loaded_by(f"for name in {own}: getattr(dylora, name)")
    assert "dylora.export" in modules
    slow = {"transformers.modeling_utils", "transformers.trainer", "dylora.integrations"}
    assert not modules & (slow | {*OF_THE_SUITE})


def test_completion_lists_the_public_names_and_the_integrations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    public = [name for name in dir(dylora) if not name.startswith("__")]
    assert public == sorted({*dylora.__all__, "integrations"})
    monkeypatch.delattr(dylora, "integrations", raising=False)  # as before their first import
    assert dylora.integrations.DyLoRACallback.__name__ == "DyLoRACallback"
    with pytest.raises(AttributeError, match="no attribute 'adpat'"):
        dylora.adpat  # noqa: B018


def test_nesting_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "dylora.nested", raising=False)
    for name in ("nest", "load_nested"):
        with pytest.raises(UserError, match="pip install 'peft"):
            getattr(dylora, name)


def readme_example() -> str:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Use the library")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def needed(package: Distribution, seen: set[str]) -> Iterator[Distribution]:
    """The installed packages that a package needs without any of its extras, and theirs."""
    for line in package.requires or []:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        found = distribution(name)
        yield found
        yield from needed(found, seen)


def link(package: Distribution, site: Path) -> None:
    """Let an environment see an installed package."""
    tops = {Path(file).parts[0] for file in package.files or []} - {"..", "__pycache__"}
    for top in tops:
        if not (site / top).exists():  # packages of one namespace share a folder
            (site / top).symlink_to(Path(str(package.locate_file(top))))


@pytest.mark.slow
def test_the_wheel_runs_the_example_where_only_its_needs_are_installed(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build leaves files beside what it builds
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("dylora", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    build = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run([*pip, *build], check=True)
    [wheel] = tmp_path.glob("dylora-*.whl")

    environment = tmp_path / "empty"
    venv.create(environment, with_pip=False)
    [site] = environment.glob("lib/python*/site-packages")
    subprocess.run([*pip, "install", *offline, "--target", site, wheel], check=True)
    assert (site / "dylora" / "py.typed").is_file()
    [metadata] = site.glob("dylora-*.dist-info")
    for package in needed(Distribution.at(metadata), set()):
        link(package, site)

    program = tmp_path / "example.py"
    program.write_text(GIVEN.format(absent=OF_THE_SUITE) + readme_example(), encoding="utf-8")
    python = [environment / "bin" / "python", "-I"]
    done = subprocess.run([*python, program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sorted.safetensors").is_file()
    done = subprocess.run([*python, "-m", "dylora", "run"], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'dylora[suite]'" in done.stderr
