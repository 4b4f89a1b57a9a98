"""The documentation: the site builds, its code runs, its commands compose, its names exist."""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tiny
from small_run import compose_config

import dylora
from dylora.suite.commands import COMMANDS
from dylora.suite.config import Config, MethodConfig, ModelConfig, TaskConfig, TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("index.md", "quickstart.md", "howto-model.md")  # pages whose Python code runs as it stands


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, those that a page includes from files left out."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if "--8<--" not in block]


def commands() -> list[tuple[str, list[str]]]:
    """Every command line in a shell block: (page, words), comments and continuations resolved."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment variables
                    words = words[1:]
                if words:
                    found.append((page.name, words))
    return found


def running(program: str) -> list[Any]:
    """The command lines with a program that matches, also below a launcher, from there on."""
    found = []
    for page, words in commands():
        at = next((i for i, word in enumerate(words) if re.fullmatch(program, word)), None)
        if at is not None:
            found.append(pytest.param(words[at:], id=f"{page}: {shlex.join(words)[:90]}"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_code_of_a_page_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block, str(page))):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{node.module} has no {name.name}"
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "dylora":
                assert hasattr(dylora, node.attr), f"dylora has no {node.attr}"


@pytest.mark.parametrize("name", RUN)
def test_the_code_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block after block, as a reader would; tiny models lie where the page names a hub id."""
    tiny.save_roberta(tmp_path / "roberta-base", ["a fine film", "a dull film"] * 3)
    tiny.gpt2().save_pretrained(tmp_path / "gpt2")
    tiny.llama().save_pretrained(tmp_path / "tiny-llama")
    monkeypatch.chdir(tmp_path)
    code = blocks(ROOT / "docs" / name, "python")
    assert code
    namespace: dict[str, Any] = {}
    for block in code:
        exec(compile(block, name, "exec"), namespace)


def test_every_page_runs_the_suite_by_the_one_command_that_it_has_after_activation() -> None:
    for page, words in commands():
        assert not [word for word in words if re.search(r"run\.py|scripts/", word)], (page, words)


def of_command(program: str, *names: str) -> list[Any]:
    """The command lines `program NAME ...`, from the name on."""
    found = running(program)
    return [pytest.param(p.values[0][1:], id=p.id) for p in found if p.values[0][1] in names]


@pytest.mark.parametrize("words", of_command(r"(.*/)?dylora", "run"))
def test_a_run_command_composes(words: list[str]) -> None:
    """What `dylora run WORDS` runs composes and is sound; of a sweep, its first run."""
    options = [word for word in words[1:] if word not in ("-m", "--multirun", "--help")]
    if "--cfg" in options:
        del options[options.index("--cfg") : options.index("--cfg") + 2]
    if "-m" in words or any(word.startswith("experiments=") for word in words):
        options = [re.sub(r"^([^=]+)=([^\[{,]*),.*", r"\1=\2", option) for option in options]
    compose_config(*options)


def test_every_command_of_a_page_exists() -> None:
    names = {param.values[0][1] for param in running(r"(.*/)?dylora")}
    assert "choose-rank" in names and names <= {*COMMANDS, "completion", "--help"}


@pytest.mark.parametrize("words", of_command(r"(.*/)?dylora", *(COMMANDS.keys() - {"run"})))
def test_a_command_has_the_options_that_a_page_gives_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("script", ROOT / COMMANDS[words[0]].script)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "script", script)  # dataclasses look their module up
    spec.loader.exec_module(script)
    known = {field.name for field in fields(script.Options)}
    given = {word.partition("=")[0] for word in words[1:] if "=" in word}
    assert given <= known


@pytest.mark.parametrize("words", running("make"))
def test_a_make_target_exists(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    experiments = {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE)) | experiments
    assert words[1] in targets | {"NAME"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; any warning of mkdocs fails the build."""
    pytest.importorskip("mkdocs", reason="mkdocs is absent: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_fetches_nothing(site: Path) -> None:
    for page in PAGES[1:]:
        path = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        fetched = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"([^\"]+)", html(path)
        )
        assert fetched
        assert not [address for address in fetched if re.match(r"(https?:)?//", address)]


@pytest.mark.slow
def test_equations_are_mathml(site: Path) -> None:
    concepts = html(site / "concepts.html")
    assert (
        concepts.count('display="block"')
        == (ROOT / "docs" / "concepts.md").read_text().count("$$") / 2
    )
    for path in site.rglob("*.html"):
        assert "arithmatex" not in html(path)


@pytest.mark.slow
def test_the_reference_has_every_public_name_and_option(site: Path) -> None:
    library = html(site / "api" / "library.html")
    for name in dylora.__all__:
        assert f'id="dylora.{name}"' in library, f"add `::: dylora.{name}` to docs/api/library.md"
    options = re.sub(r"<[^>]+>", "", html(site / "api" / "options.html"))
    for schema in (Config, TaskConfig, ModelConfig, MethodConfig, TrainConfig):
        assert all(f"{field.name}: " in options for field in fields(schema))


@pytest.mark.slow
def test_search_finds_the_pages(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text()
    assert all(page.with_suffix(".html").name in index for page in PAGES[1:])


def html(path: Path) -> str:
    return path.read_text(encoding="utf-8")
