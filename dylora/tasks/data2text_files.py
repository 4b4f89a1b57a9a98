"""The files of data-to-text sets as they were published: E2E's CSV, LoRA's text lines, WebNLG's and
DART's XML and JSON.

Readers keep what the file says and number what they read, so that every complaint can name the
file and the place in it.
"""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dylora.errors import UserError
from dylora.tasks.base import parse_json, read_text

Triple = tuple[str, str, str]  # subject, property, object

# Names that LoRA's text files give to attributes of the challenge's CSV files; others are kept.
ATTRIBUTE_NAMES = {"eatType": "Type", "familyFriendly": "family friendly", "priceRange": "price"}
ATTRIBUTE = re.compile(r"([^\[\],]+)\[([^\]]*)\]")


@dataclass(frozen=True)
class Pair:
    """One line of an E2E file: a linearized input and one text for it."""

    source: str
    reference: str


@dataclass(frozen=True)
class Reference:
    """One text for an entry; `comment` is WebNLG's verdict ("good", "toFix") or DART's origin."""

    text: str
    comment: str


@dataclass(frozen=True)
class Entry:
    """One set of triples with all of its texts."""

    triples: list[Triple]
    references: list[Reference]
    category: str
    place: str  # file and number of the entry, for messages


def one_line(text: str) -> str:
    """`text` stripped, with every kind of line break turned into a space."""
    return " ".join(text.splitlines()).strip()


def read_e2e(path: Path) -> list[Pair]:
    """Rows of an E2E file: `.csv` with the columns mr and ref, or LoRA's `input||text` lines.

    Both give the same inputs; the texts of LoRA's files are split into words and punctuation
    marks, those of the CSV files are as people wrote them. Raises UserError naming file and row.
    """
    text = read_text(path)
    rows = list(_csv_rows(path, text) if path.suffix == ".csv" else _line_rows(path, text))
    if not rows:
        raise UserError(f"{path} has no row; download it again or remove it")
    return rows


def _csv_rows(path: Path, text: str) -> Iterator[Pair]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = _valid(path, reader)
    header = next(rows)
    for column in ("mr", "ref"):
        if header.count(column) != 1:
            what = "two columns" if column in header else "no column"
            raise UserError(f"{path} has {what} {column!r}; its columns are {', '.join(header)}")
    for number, cells in enumerate(filter(None, rows), start=1):
        place = f"{path}, row {number}"
        if len(cells) != len(header):
            raise UserError(
                f"{place}: {len(cells)} columns instead of {len(header)}; a text with commas "
                'needs quotes: "name[X], eatType[Y]","A text, with a comma."'
            )
        row = dict(zip(header, cells, strict=True))
        if not row["ref"].strip():
            raise UserError(f"{place}: the text is empty; remove the row")
        yield Pair(_linearize_attributes(row["mr"], place), one_line(row["ref"]))


def _valid(path: Path, reader: Any) -> Iterator[list[str]]:
    begin = 1
    try:
        for cells in reader:
            yield cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, row from line {begin}: not valid CSV ({error})") from None


def _linearize_attributes(meaning: str, place: str) -> str:
    """`name[X], eatType[Y]` as LoRA's files write it, `name : X | Type : Y`."""
    parts = []
    position = 0
    while match := ATTRIBUTE.match(meaning, position):
        name = match[1].strip()
        # Their tokenizer split pound signs and ranges: "£20-25" is "£ 20 - 25".
        value = re.sub(r"£(?=\d)", "£ ", match[2])
        value = re.sub(r"(?<=\d)-(?=\d)", " - ", value)
        parts.append(f"{ATTRIBUTE_NAMES.get(name, name)} : {value}")
        position = match.end() + (meaning[match.end() : match.end() + 1] == ",")
    if not parts or meaning[position:].strip():
        raise UserError(f"{place}: {meaning!r} is not of the form name[value], name[value]")
    return " | ".join(parts)


def _line_rows(path: Path, text: str) -> Iterator[Pair]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            source, separator, reference = line.strip().partition("||")
            place = f"{path}, line {number}"
            if not separator:
                raise UserError(f"{place}: no || between input and text")
            if not source.strip() or not reference.strip():
                raise UserError(f"{place}: nothing in front of || or behind it")
            yield Pair(source, one_line(reference))


def read_entries(path: Path) -> list[Entry]:
    """Entries of a WebNLG or DART file, `.json` or `.xml`, or of a folder of XML files.

    A folder is read in the order of its sorted file names, which is the order of the JSON form.
    Raises UserError naming the file and the entry.
    """
    if path.is_dir():
        files = sorted(path.rglob("*.xml"))
        if not files:
            raise UserError(f"{path} holds no .xml file")
        return [entry for file in files for entry in read_entries(file)]
    if path.suffix == ".xml":
        found = _xml_entries(path)
    elif path.suffix == ".json":
        found = _json_entries(path)
    else:
        raise UserError(f"{path}: unknown form; name a .json or .xml file, or a folder of .xml")
    entries = list(_checked(path, found))
    if not entries:
        raise UserError(f"{path} has no entry; download it again or remove it")
    return entries


def _checked(path: Path, entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in entries:
        if not entry.triples:
            raise UserError(f"{entry.place}: it has no triple")
        # One of several may be empty, as in DART's test set.
        if not any(reference.text for reference in entry.references):
            raise UserError(
                f"{entry.place}: it has no reference text; remove it or name a file with references"
            )
        yield entry


def _xml_entries(path: Path) -> Iterator[Entry]:
    text = read_text(path)
    if "<!DOCTYPE" in text:
        raise UserError(f"{path} has a DOCTYPE, whose entities could stand for anything: remove it")
    try:
        root = ElementTree.fromstring(text)  # in UTF-8, whatever its first line says
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not valid XML: {error}; download it again") from None
    for number, element in enumerate(root.iter("entry"), start=1):
        place = f"{path}, entry {number} ({element.get('eid', 'no eid')})"
        triples = []
        for triple in element.iterfind("modifiedtripleset/mtriple"):
            written = "".join(triple.itertext())
            parts = written.split(" | ")
            if len(parts) != 3:
                raise UserError(f"{place}: {written!r} is not subject | property | object")
            triples.append((parts[0], parts[1], parts[2]))
        references = [
            Reference(one_line("".join(text.itertext())), text.get("comment", ""))
            for text in element.iterfind("lex")
        ]
        yield Entry(triples, references, element.get("category", ""), place)


def _json_entries(path: Path) -> Iterator[Entry]:
    data = parse_json(read_text(path), path)
    # WebNLG: {"entries": [{"1": {...}}, ...]}; DART: [{...}, ...].
    webnlg = isinstance(data, dict) and "entries" in data
    items = data["entries"] if webnlg else data
    if not isinstance(items, list):
        raise UserError(f"{path}: neither WebNLG's {{'entries': [...]}} nor DART's [...]")
    for number, item in enumerate(items, start=1):
        place = f"{path}, entry {number}"
        try:
            yield _webnlg_entry(item, place) if webnlg else _dart_entry(item, place)
        except KeyError as error:
            raise UserError(f"{place}: it has no {error}") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{place}: not in the published form ({error})") from None


def _webnlg_entry(item: dict[str, Any], place: str) -> Entry:
    (entry,) = item.values()
    return Entry(
        [
            (_text(t["subject"]), _text(t["property"]), _text(t["object"]))
            for t in entry["modifiedtripleset"]
        ],
        [
            Reference(one_line(_text(x["lex"])), _text(x["comment"]))
            for x in entry["lexicalisations"]
        ],
        _text(entry["category"]),
        place,
    )


def _dart_entry(item: dict[str, Any], place: str) -> Entry:
    triples = [
        (_text(first), _text(second), _text(third)) for first, second, third in item["tripleset"]
    ]
    references = [
        Reference(one_line(_text(x["text"])), _text(x["source"])) for x in item["annotations"]
    ]
    return Entry(triples, references, "MISC", place)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{json.dumps(value)} is no text")
    return value
