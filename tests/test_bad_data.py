"""Faults put into the files of every loader: one line naming the file and the place, or no loss."""

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from task_yaml import task_config
from test_tasks_data2text import WEBNLG_XML, dart_json, webnlg_json
from test_tasks_table import CSV, ROWS

from dylora.errors import UserError
from dylora.suite.config import Kind
from dylora.tasks import LOADERS
from dylora.tasks.base import Splits

DART_XML = """<benchmark><entries><entry eid="1">
<modifiedtripleset><mtriple>a | b | c</mtriple></modifiedtripleset>
<lex comment="x">y</lex></entry></entries></benchmark>"""
TSV = "title\tbody\tqueue\nHelp\tnow\tbilling\nHi\t\ttechnical\n"
GOOD = {  # loader and form -> a file as it should be
    ("table", "csv"): CSV,
    ("table", "tsv"): TSV,
    ("table", "json"): json.dumps(ROWS),
    ("table", "jsonl"): "\n".join(map(json.dumps, ROWS)),
    ("glue", "tsv"): TSV,
    ("e2e", "csv"): 'mr,ref\n"name[X], area[Y]","It is, X."\nname[Z],Z.\n',
    ("e2e", "txt"): "name : X | area : Y||It is , X .\nname : Z||Z .\n",
    ("dart", "json"): dart_json(),
    ("dart", "xml"): DART_XML,
    ("webnlg", "json"): webnlg_json(),
    ("webnlg", "xml"): WEBNLG_XML,
}
TABLE = {
    "text": ["title", "body"],
    "label": "queue",
    "labels": ["billing", "technical"],
    "columns": None,
}


def load(loader: str, form: str, folder: Path, content: bytes | None, **changes: Any) -> Splits:
    """What the loader reads from one file (None: a folder is in its place)."""
    file = folder / f"data.{form}"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    known = {"table": "custom", "glue": "mrpc"}
    of_table = TABLE if loader in known else {}
    files = {**task_config(known.get(loader, loader)).files, "test": None, "validation": None}
    task = task_config(
        known.get(loader, loader),
        **{"folder": str(folder), "eval_splits": [], **of_table, **changes},
        files={**dict.fromkeys(files), "train": file.name},
    )
    return resolve_name(LOADERS[loader])(task, folder)


def refused(message: str, *arguments: Any, **changes: Any) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(*arguments, **changes)
    assert re.search(r"/data\.\w+", str(error.value)), "names the file"
    assert "\n" not in str(error.value), "one line"


FORMS = pytest.mark.parametrize(("loader", "form"), GOOD, ids=lambda name: name)
BYTES: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "empty": (lambda good: b"", "empty"),
    "blank": (lambda good: b" \n\n ", "empty|column|rows"),
    "a byte order mark alone": (lambda good: codecs.BOM_UTF8, "empty"),
    "UTF-16": (lambda good: good.decode().encode("utf-16"), r"line 1: not UTF-8 but UTF-16"),
    "UTF-16, no mark": (
        lambda good: good.decode().encode("utf-16-le"),
        r"line \d+: (a NUL|not UTF-8)",
    ),
    "Latin-1": (lambda good: good + b"\n\xe9", r"line \d+: not UTF-8 \(byte 0xe9"),
    "a NUL": (lambda good: good + b"\0", r"line \d+: a NUL"),
    "cut": (lambda good: good[:-8], r"line \d+|row \d+"),
    "a folder in its place": (lambda good: None, "cannot be read|no such file|no .xml"),
}


@FORMS
def test_every_form_is_read_as_it_should_be(loader: str, form: str, tmp_path: Path) -> None:
    rows = load(loader, form, tmp_path, GOOD[loader, form].encode())["train"]
    assert len(rows) >= 1


@FORMS
@pytest.mark.parametrize("fault", BYTES)
def test_damaged_bytes_are_refused(loader: str, form: str, fault: str, tmp_path: Path) -> None:
    damage, message = BYTES[fault]
    refused(message, loader, form, tmp_path, damage(GOOD[loader, form].encode()))


@FORMS
def test_a_byte_order_mark_and_other_line_ends_change_nothing(
    loader: str, form: str, tmp_path: Path
) -> None:
    good = GOOD[loader, form]
    for number, ends in enumerate(["\n", "\r\n"]):
        (tmp_path / str(number)).mkdir()
        content = codecs.BOM_UTF8 + good.replace("\n", ends).encode()
        rows = load(loader, form, tmp_path / str(number), content)["train"]
        (tmp_path / f"{number}p").mkdir()
        assert rows[:] == load(loader, form, tmp_path / f"{number}p", good.encode())["train"][:]


JSON_FORMS = [key for key in GOOD if key[1].startswith("json")]
VALUE = {"table": '"Broken, again"', "dart": '"y"', "webnlg": '"P was born in 1900."'}
LABEL = {"table": '"billing"', "dart": '"c"', "webnlg": '"1900"'}
VALUES = {  # in place of a text
    "null": "null",
    "a number": "5",
    "true": "true",
    "a list": '["a"]',
    "nothing, nested deep": "[" * 100_000 + "]" * 100_000,
    "half a character": r'"\ud83d"',
    "the other half": r'"\uDE00 a"',
    "a huge number": "1" * 5000,
    "NaN": "NaN",
    "no value": "",
}


@pytest.mark.parametrize(("loader", "form"), JSON_FORMS, ids=lambda name: name)
@pytest.mark.parametrize("place", ["text", "label or triple"])
@pytest.mark.parametrize("fault", VALUES)
def test_json_values_that_are_no_text_are_refused(
    loader: str, form: str, place: str, fault: str, tmp_path: Path
) -> None:
    """JSON null must not become the text "None"."""
    old = (VALUE if place == "text" else LABEL)[loader]
    assert old in GOOD[loader, form]
    content = GOOD[loader, form].replace(old, VALUES[fault])
    refused(r"(line|object|entry) \d+", loader, form, tmp_path, content.encode())


@pytest.mark.parametrize(("loader", "form"), JSON_FORMS, ids=lambda name: name)
def test_a_name_twice_in_one_object_is_refused(loader: str, form: str, tmp_path: Path) -> None:
    content = re.sub(r'\{("[^"]+"):', r"{\1: 0, \1:", GOOD[loader, form])
    refused("twice", loader, form, tmp_path, content.encode())


@pytest.mark.parametrize(("loader", "form"), JSON_FORMS, ids=lambda name: name)
@pytest.mark.parametrize("root", ["null", "5", '"a"', "{}", '{"entries": null}', "[]", "[[]]"])
def test_json_of_another_shape_is_refused(
    loader: str, form: str, root: str, tmp_path: Path
) -> None:
    refused(
        "not a list|not an object|neither|not in the publ|no '?(entry|rows|title)",
        loader,
        form,
        tmp_path,
        root.encode(),
    )


def test_both_halves_of_a_character_are_one(tmp_path: Path) -> None:
    content = GOOD["table", "json"].replace("Invoice", r"\ud83d\ude00")
    assert load("table", "json", tmp_path, content.encode())["train"]["text_a"][1] == "😀"


BOMB = '<!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
FILE = '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
XML = {
    "an entity bomb": (lambda good: BOMB + good.split("?>")[-1], "DOCTYPE"),
    "another file": (lambda good: FILE + good.split("?>")[-1], "DOCTYPE"),
    "an unknown entity": (lambda good: good.replace("</lex>", "&a;</lex>"), "not valid XML.*line"),
    "a triple of two": (lambda good: good.replace(" | ", " "), "entry 1.* is not subject"),
    "no texts": (lambda good: re.sub("(?s)<lex.*?</lex>", "", good), "entry 1.*no reference"),
    "empty texts": (lambda good: re.sub("(?s)>[^<]*</lex>", "></lex>", good), "no reference"),
    "a control character": (lambda good: good.replace("</lex>", "\x01</lex>"), "not valid XML"),
}  # fmt: skip


@pytest.mark.parametrize("loader", ["dart", "webnlg"])
@pytest.mark.parametrize("fault", XML)
def test_xml_faults_are_refused(loader: str, fault: str, tmp_path: Path) -> None:
    damage, message = XML[fault]
    refused(message, loader, "xml", tmp_path, damage(GOOD[loader, "xml"]).encode())


@pytest.mark.parametrize("loader", ["dart", "webnlg"])
def test_markup_inside_a_text_loses_nothing(loader: str, tmp_path: Path) -> None:
    inner = re.compile(r"(?s)(<lex[^>]*>).*?</lex>")
    content = inner.sub(r"\1A <b>is</b> <!-- so --><i>B</i>.</lex>", GOOD[loader, "xml"])
    rows = load(loader, "xml", tmp_path, content.encode())["train"]
    assert {" ".join(target.split()) for target in rows["target"]} == {"A is B."}


def test_a_wrong_encoding_in_the_first_line_does_not_change_the_text(tmp_path: Path) -> None:
    content = WEBNLG_XML.replace('encoding="UTF-8"', 'encoding="ISO-8859-1"')
    rows = load("webnlg", "xml", tmp_path, content.encode())["train"]
    assert "Cé" in rows["source"][0]


def test_deeply_nested_xml_is_no_crash(tmp_path: Path) -> None:
    content = "<a>" * 100_000 + "</a>" * 100_000
    refused("no entry", "webnlg", "xml", tmp_path, content.encode())


TEXT_TABLES = [("table", "csv", ","), ("table", "tsv", "\t"), ("glue", "tsv", "\t")]
ROWS_OF_CELLS: dict[str, tuple[list[list[str]], str]] = {
    "a column twice": ([["title", "title", "body", "queue"], ["a"] * 4], "two columns.*'title'"),
    "no label": ([["title", "body"], ["a", "b"]], "no column 'queue'"),
    "no text": ([["title", "queue"], ["a", "billing"]], "no column 'body'"),
    "a cell too many": ([["title", "body", "queue"], ["a", "b", "billing", "c"]], "line 2: 4 col"),
    "a cell too few": ([["title", "body", "queue"], ["a", "billing"]], "line 2: 2 columns"),
    "an unknown label": ([["title", "body", "queue"], ["a", "b", "hr"]], "line 2: unknown label"),
    "a space in the label": ([["title", "body", "queue"], ["a", "b", "billing "]], "unknown label"),
    "an empty label": ([["title", "body", "queue"], ["a", "b", ""]], "unknown label ''"),
    "a header alone": ([["title", "body", "queue"]], "no rows"),
    "no usable text": ([["title", "body", "queue"], ["", " ", "billing"]], "no row has a text"),
}


@pytest.mark.parametrize(("loader", "form", "separator"), TEXT_TABLES)
@pytest.mark.parametrize("fault", ROWS_OF_CELLS)
def test_table_faults_are_refused(
    loader: str, form: str, separator: str, fault: str, tmp_path: Path
) -> None:
    rows, message = ROWS_OF_CELLS[fault]
    content = "\n".join(separator.join(cells) for cells in rows)
    refused(message, loader, form, tmp_path, content.encode())


@pytest.mark.parametrize(("loader", "form", "separator"), TEXT_TABLES)
@pytest.mark.parametrize("score", ["", "nan", "inf", "-inf", "1e300", "1e19", "high", "1,5", "0x1"])
def test_scores_that_cannot_be_learned_are_refused(
    loader: str, form: str, separator: str, score: str, tmp_path: Path
) -> None:
    cell = f'"{score}"' if form == "csv" else score
    content = f"title{separator}queue\na{separator}{cell}\n"
    changes = {"text": ["title"], "labels": [], "kind": Kind.regression}
    refused("line 2", loader, form, tmp_path, content.encode(), **changes)


E2E = {
    "csv": {
        "an unquoted comma": ("mr,ref\nname[X],It is, X.\n", "row 1: 3 columns instead of 2"),
        "unquoted attributes": ("mr,ref\nname[X], area[Y],Z.\n", "row 1: 3 columns instead of 2"),
        "no text": ("mr,ref\nname[X],\n", "row 1: the text is empty"),
        "no input": ("mr,ref\n,It is.\n", "row 1: '' is not of the form"),
        "a column twice": ("mr,ref,ref\nname[X],a,b\n", "two columns 'ref'"),
        "no references": ("mr\nname[X]\n", "no column 'ref'"),
        "an open bracket": ("mr,ref\nname[X,It is.\n", "row 1: .* is not of the form"),
        "text between": ('mr,ref\n"name[X] and, area[Y]",a\n', "row 1: .* is not of the form"),
    },
    "txt": {
        "no text": ("name : X||\n", "line 1: nothing"),
        "no input": ("a : b||c\n||It is.\n", "line 2: nothing"),
        "one bar": ("name : X|It is.\n", r"line 1: no \|\|"),
    },
}


@pytest.mark.parametrize(
    ("form", "fault"), [(form, fault) for form, faults in E2E.items() for fault in faults]
)
def test_e2e_faults_are_refused(form: str, fault: str, tmp_path: Path) -> None:
    content, message = E2E[form][fault]
    refused(message, "e2e", form, tmp_path, content.encode())


@pytest.mark.parametrize("form", ["json", "xml"])
def test_a_split_without_a_usable_text_is_refused(form: str, tmp_path: Path) -> None:
    content = GOOD["webnlg", form].replace('"good"', '"toFix"')
    refused("no entry has a text marked good", "webnlg", form, tmp_path, content.encode())
