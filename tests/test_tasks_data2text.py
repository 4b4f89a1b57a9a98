"""Reading, linearizing and grouping E2E, DART and WebNLG."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from task_yaml import task_config

from dylora.errors import UserError
from dylora.tasks.base import Splits
from dylora.tasks.data2text import load_dart, load_e2e, load_webnlg
from dylora.tasks.data2text_files import read_e2e, read_entries

WEBNLG_XML = """<?xml version="1.0" encoding="UTF-8"?>
<benchmark><entries>
<entry category="Airport" eid="Id1" size="2">
  <originaltripleset><otriple>A_1 | other | B</otriple></originaltripleset>
  <modifiedtripleset>
    <mtriple>A_1 | runwayName | "Cé, D &amp; E"</mtriple>
    <mtriple>A_1 | city | B</mtriple>
  </modifiedtripleset>
  <lex comment="good" lid="Id1">First  text.</lex>
  <lex comment="toFix" lid="Id2">Bad text.</lex>
  <lex comment="good" lid="Id3"> Second
text. </lex>
</entry>
<entry category="Politician" eid="Id2" size="1">
  <modifiedtripleset><mtriple>P | born | 1900</mtriple></modifiedtripleset>
  <lex comment="good" lid="Id1">P was born in 1900.</lex>
</entry>
</entries></benchmark>
"""
WEBNLG_SOURCE = 'A_1 : runwayName : "Cé, D & E" | A_1 : city : B'


def webnlg_json() -> str:
    def triple(subject: str, relation: str, value: str) -> dict[str, str]:
        return {"subject": subject, "property": relation, "object": value}

    def texts(*pairs: tuple[str, str]) -> list[dict[str, str]]:
        return [{"comment": comment, "lex": text} for comment, text in pairs]

    good = ("good", "First  text."), ("toFix", "Bad text."), ("good", " Second\ntext. ")
    triples = [triple("A_1", "runwayName", '"Cé, D & E"'), triple("A_1", "city", "B")]
    born = texts(("good", "P was born in 1900."))
    entries = [
        {"category": "Airport", "modifiedtripleset": triples, "lexicalisations": texts(*good)},
        {
            "category": "Politician",
            "modifiedtripleset": [triple("P", "born", "1900")],
            "lexicalisations": born,
        },
    ]
    return json.dumps({"entries": [{str(i): entry} for i, entry in enumerate(entries, start=1)]})


def put(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(task: str, folder: Path, **files: str | None) -> Splits:
    loaders = {"e2e": load_e2e, "dart": load_dart, "webnlg": load_webnlg}
    every = {"train": None, "validation": None, "test": None} | files
    return loaders[task](task_config(task, files=every, eval_splits=[]), folder)


def references(split: Dataset) -> int:
    return sum(len(row) for row in split["references"])


# Linearization


def test_e2e_csv_and_lora_lines_give_the_same_inputs(tmp_path: Path) -> None:
    put(
        tmp_path,
        "e2e/a.csv",
        'mr,ref\n"name[The Mill], eatType[pub], priceRange[£20-25], familyFriendly[yes]","It is,\n'
        ' £20."\n"name[The Mill], eatType[pub], priceRange[more than £30], near[X]",Dear.\n',
    )
    put(
        tmp_path,
        "e2e/a.txt",
        "name : The Mill | Type : pub | price : £ 20 - 25 | family friendly : yes||It is , £ 20 ."
        " \n"
        "name : The Mill | Type : pub | price : more than £ 30 | near : X||Dear . \n",
    )
    from_csv = load("e2e", tmp_path, train="a.csv")["train"]
    from_lines = load("e2e", tmp_path, train="a.txt")["train"]
    assert from_csv["source"][:] == from_lines["source"][:]
    assert from_csv["target"][:] == ["It is,  £20.", "Dear."], "line ends become spaces"
    assert from_lines["target"][:] == ["It is , £ 20 .", "Dear ."]


def test_e2e_groups_references_by_input_in_order_of_appearance(tmp_path: Path) -> None:
    put(tmp_path, "e2e/a.txt", "b : 1||one\na : 1||two\nb : 1||three\n")
    split = load("e2e", tmp_path, test="a.txt")["test"]
    assert split["source"][:] == ["b : 1", "a : 1"]
    assert split["references"][:] == [["one", "three"], ["two"]]


@pytest.mark.parametrize("name", ["a.xml", "a.json", "folder"])
def test_webnlg_forms_agree(tmp_path: Path, name: str) -> None:
    """Triples as `subject : property : object`, texts not marked "good" left out."""
    content = webnlg_json() if name == "a.json" else WEBNLG_XML
    put(tmp_path, f"webnlg_2017/{'folder/1triples/a.xml' if name == 'folder' else name}", content)
    splits = load("webnlg", tmp_path, train=name, test=name)
    assert splits["train"]["source"][:] == [WEBNLG_SOURCE] * 2 + ["P : born : 1900"]
    assert splits["train"]["target"][:] == ["First  text.", "Second text.", "P was born in 1900."]
    assert splits["train"].column_names == ["source", "target"]
    assert splits["test"]["source"][:] == [WEBNLG_SOURCE, "P : born : 1900"]
    assert splits["test"]["references"][0] == ["First  text.", "Second text."]
    assert splits["test"]["part"][:] == ["seen", "unseen"]


@pytest.mark.parametrize("form", ["json", "xml"])
def test_dart_lowers_properties_and_merges_equal_inputs(tmp_path: Path, form: str) -> None:
    """Two entries with the same triples are one input, as in LoRA's evaluation."""
    if form == "json":
        triples = [["Mars Hill", "JOINED_IN", "1973"]]
        entries = [
            {"tripleset": triples, "annotations": [{"source": "a", "text": "One."}]},
            {"tripleset": [["X", "Y", "Z"]], "annotations": [{"source": "a", "text": "Two."}]},
            {"tripleset": triples, "annotations": [{"source": "b", "text": "Three."}]},
        ]
        content = json.dumps(entries)
    else:
        entry = (
            "<entry><modifiedtripleset><mtriple>{}</mtriple></modifiedtripleset>"
            "<lex>{}</lex></entry>"
        )
        mars = "Mars Hill | JOINED_IN | 1973"
        texts = [(mars, "One."), ("X | Y | Z", "Two."), (mars, "Three.")]
        content = f"<b>{''.join(entry.format(*text) for text in texts)}</b>"
    put(tmp_path, f"dart/a.{form}", content)
    splits = load("dart", tmp_path, train=f"a.{form}", test=f"a.{form}")
    assert splits["train"]["source"][1] == "X : y : Z"
    assert len(splits["train"]) == 3
    assert splits["test"]["source"][:] == ["Mars Hill : joined_in : 1973", "X : y : Z"]
    assert splits["test"]["references"][:] == [["One.", "Three."], ["Two."]]


# The real data: the counts of its README


E2E_CSV = {"train": "trainset.csv", "validation": "devset.csv", "test": "testset_w_refs.csv"}


@pytest.mark.slow
def test_e2e_counts(shared_data: Path) -> None:
    default = load_e2e(task_config("e2e"), shared_data)
    csv = load("e2e", shared_data, **E2E_CSV)
    for splits in (default, csv):
        assert len(splits["train"]) == 42061
        assert (len(splits["validation"]), references(splits["validation"])) == (547, 4672)
        assert (len(splits["test"]), references(splits["test"])) == (630, 4693)
    for name in default:
        assert default[name]["source"][:] == csv[name]["source"][:], name


def test_e2e_texts_differ_in_spacing_only(shared_data: Path) -> None:
    lines = read_e2e(shared_data / "e2e/lora_format/test.txt")
    rows = read_e2e(shared_data / "e2e/testset_w_refs.csv")
    for line, row in zip(lines, rows, strict=True):
        assert line.source == row.source
        assert "".join(line.reference.split()) == "".join(row.reference.split())


@pytest.mark.slow
def test_webnlg_counts(shared_data: Path) -> None:
    """All texts are read; of train and dev those marked "toFix" (77 and 10) are left out."""
    counts = {"train": (6940, 18102), "dev": (872, 2268), "test": (1862, 4928)}
    for name, (entries, texts) in counts.items():
        read = read_entries(shared_data / f"webnlg_2017/json/{name}.json")
        assert (len(read), sum(len(e.references) for e in read)) == (entries, texts)
    splits = load_webnlg(task_config("webnlg"), shared_data)
    assert len(splits["train"]) == 18102 - 77
    assert references(splits["validation"]) == 2268 - 10
    assert (len(splits["test"]), references(splits["test"])) == (1862, 4928)
    parts = splits["test"]["part"][:]
    assert Counter(parts) == {"seen": 971, "unseen": 891}
    assert parts == ["seen"] * 971 + ["unseen"] * 891


@pytest.mark.slow
def test_webnlg_xml_equals_json(shared_data: Path) -> None:
    json_form = load_webnlg(task_config("webnlg"), shared_data)
    files = {"train": "train", "validation": "dev", "test": "test/testdata_with_lex.xml"}
    xml_form = load("webnlg", shared_data, **files)
    for name in json_form:
        assert json_form[name][:] == xml_form[name][:], name


@pytest.mark.slow
def test_dart_counts(shared_data: Path) -> None:
    counts = {
        "full-dev.json": (2768, 6980),
        "full-test.xml": (5097, 12552),
        "train.part.rebuilt.json": (19470, 51584),
    }
    for name, (entries, texts) in counts.items():
        read = read_entries(shared_data / f"dart/dart-v1.1.1-{name}")
        assert (len(read), sum(len(e.references) for e in read)) == (entries, texts)
    test = load("dart", shared_data, test="dart-v1.1.1-full-test.xml")["test"]
    assert (len(test), references(test)) == (4159, 12552)
    assert len(set(test["source"][:])) == 4159


@pytest.mark.slow
def test_dart_xml_equals_json(shared_data: Path) -> None:
    stem = "dart-v1.1.1-full"
    json_form = load(
        "dart", shared_data, validation=f"{stem}-dev.json", test=f"{stem}-test.from_xml.json"
    )
    xml_form = load("dart", shared_data, validation=f"{stem}-dev.xml", test=f"{stem}-test.xml")
    for name in json_form:
        assert json_form[name][:] == xml_form[name][:], name


# Bad input: one message with file and place


def without(text: str, *cut: str) -> str:
    for part in cut:
        assert part in text
        text = text.replace(part, "")
    return text


def dart_json(**changes: Any) -> str:
    entry = {"tripleset": [["a", "b", "c"]], "annotations": [{"source": "x", "text": "y"}]}
    good = dict(entry)
    entry.update(changes)
    return json.dumps([good, {k: v for k, v in entry.items() if v is not None}])


P_LEX = '<lex comment="good" lid="Id1">P was born in 1900.</lex>'
BAD = [
    ("e2e", "a.csv", "mr,text\nname[X],Y\n", r"a\.csv has no column 'ref'; .*mr, text"),
    ("e2e", "a.csv", "mr,ref\nname[X],Y\nname[X]\n", r"a\.csv, row 2: 1 columns instead of 2"),
    ("e2e", "a.csv", "mr,ref\nX,Y\n", r"a\.csv, row 1: 'X' is not of the form"),
    ("e2e", "a.csv", 'mr,ref\n"name[X], area",Y\n', r"a\.csv, row 1: .*not of the form"),
    ("e2e", "a.csv", 'mr,ref\nname[X],"Y\nname[X],Y\n', r"a\.csv, row from line 2: not valid CSV"),
    ("e2e", "a.csv", "mr,ref\n", r"a\.csv has no row"),
    ("e2e", "a.csv", "", r"a\.csv.*empty"),
    ("e2e", "a.txt", "a : b||c\na : b\n", r"a\.txt, line 2: no \|\|"),
    ("e2e", "a.txt", "a : b||Caf\xe9\n".encode("latin1"), r"a\.txt, line 1: not UTF-8.*0xe9"),
    ("webnlg", "a.xml", WEBNLG_XML[:300], r"a\.xml is not valid XML: .*line"),
    ("webnlg", "a.xml", WEBNLG_XML.encode("latin1"), r"a\.xml, line 6: not UTF-8"),
    ("webnlg", "a.xml", without(WEBNLG_XML, P_LEX), r"a\.xml, entry 2 \(Id2\): .*no reference"),
    ("webnlg", "a.xml", without(WEBNLG_XML, " | 1900"), r"entry 2 .*'P \| born' is not subject"),
    ("webnlg", "a.xml", "<benchmark/>", r"a\.xml has no entry"),
    ("webnlg", "a.json", webnlg_json()[:200], r"a\.json, line 1: not valid JSON"),
    ("webnlg", "a.json", '{"entries": [{"1": {}}]}', r"a\.json, entry 1: .*'modifiedtripleset'"),
    ("webnlg", "a.json", '{"entries": [3]}', r"a\.json, entry 1: not in the published form"),
    ("webnlg", "a.json", '{"rows": []}', r"a\.json: neither WebNLG"),
    ("dart", "a.json", "[]", r"a\.json has no entry"),
    ("dart", "a.json", dart_json(annotations=None), r"a\.json, entry 2: it has no 'annotations'"),
    ("dart", "a.json", dart_json(annotations=[]), r"a\.json, entry 2: it has no reference"),
    ("dart", "a.json", dart_json(tripleset=[["a", "b"]]), r"a\.json, entry 2: not in the publ"),
    ("dart", "a.json", dart_json(tripleset=[]), r"a\.json, entry 2: it has no triple"),
    ("dart", "a.tsv", "x", r"a\.tsv: unknown form"),
]


@pytest.mark.parametrize(("task", "name", "content", "message"), BAD)
def test_bad_input(
    tmp_path: Path, task: str, name: str, content: str | bytes, message: str
) -> None:
    folder = task_config(task).folder
    put(tmp_path, f"{folder}/{name}", content)
    with pytest.raises(UserError, match=message):
        load(task, tmp_path, train=name)


def test_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepare-data task=dart.*task\.files\.train=FILE"):
        load_dart(task_config("dart"), tmp_path)


def test_folder_without_xml(tmp_path: Path) -> None:
    (tmp_path / "webnlg_2017/train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no \.xml"):
        load("webnlg", tmp_path, train="train")
