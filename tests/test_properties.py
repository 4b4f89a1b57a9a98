"""What holds for any text, score and setting, tried on many that hypothesis makes up."""

import csv
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import compose_config
from test_bad_data import load

from dylora.metrics.glue import compute
from dylora.suite.record_schema import SCHEMA
from dylora.suite.records import read_record, signature, write_record

settings.register_profile("here", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("here")

# No NUL, no lone surrogates, no line ends (which readers turn into one kind, or a space).
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)
DEFAULT = compose_config()
WORD = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)


def read(loader: str, form: str, content: str, **changes: object) -> dict[str, list]:
    with tempfile.TemporaryDirectory() as folder:
        return load(loader, form, Path(folder), content.encode(), **changes)["train"][:]


@given(st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["billing", "technical"])), min_size=1))
def test_a_table_of_any_texts_comes_back_as_it_is(rows: list[tuple[str, str, str]]) -> None:
    rows.append(("one with a text", "", "billing"))
    header = ("title", "body", "queue")
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows])
    lines = "\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows)
    tabs = "\n".join("\t".join(row) for row in [header, *rows])
    expected = {
        "text_a": [row[0] for row in rows],
        "text_b": [row[1] for row in rows],
        "label": [["billing", "technical"].index(row[2]) for row in rows],
    }
    for loader, form, content in (
        ("table", "csv", table.getvalue()),
        ("table", "jsonl", lines),
        ("glue", "tsv", tabs),
    ):
        assert read(loader, form, content) == expected, form


@given(st.lists(st.tuples(WORD, TEXT), min_size=1, max_size=5), TEXT)
def test_e2e_loses_no_attribute_and_no_text(pairs: list[tuple[str, str]], text: str) -> None:
    values = [(name, value.replace("]", "").replace("\ufeff", "")) for name, value in pairs]
    row = [", ".join(f"{name}[{value}]" for name, value in values), "x" + text]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["mr", "ref"], row])
    found = read("e2e", "csv", table.getvalue())
    assert found["target"] == [row[1].strip()]
    (source,) = found["source"]
    assert source.count(" : ") >= len(values)
    for _, value in values:  # but for the spaces that LoRA's files have around pounds and ranges
        assert "".join(value.split()) in "".join(source.split())


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4), TEXT)
def test_dart_reads_the_same_from_json_and_xml(
    triples: list[tuple[str, str, str]], text: str
) -> None:
    triples = [(a.replace("|", ""), b.replace("|", ""), c.replace("|", "")) for a, b, c in triples]
    text = "x" + text
    entry = {"tripleset": triples, "annotations": [{"source": "s", "text": text}]}
    inner = "".join(f"<mtriple>{escape(' | '.join(triple))}</mtriple>" for triple in triples)
    xml = (
        f"<b><entry><modifiedtripleset>{inner}</modifiedtripleset>"
        f'<lex comment="s">{escape(text)}</lex></entry></b>'
    )
    if "\ufffe" in xml or "\uffff" in xml:  # which XML does not allow
        return
    found = read("dart", "json", json.dumps([entry]))
    assert found == read("dart", "xml", xml)
    assert found["target"] == [text.strip()]
    assert all(value in found["source"][0] for _, _, value in triples)


CLASSES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
SCORES = st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2), min_size=2, max_size=40)


@given(CLASSES)
def test_class_metrics_stay_in_their_range_in_any_order(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(pairs).T
    order = np.random.default_rng(0).permutation(len(pairs))
    for name, low in (("accuracy", 0), ("f1", 0), ("matthews_correlation", -1)):
        value = compute(name, predictions, labels)
        assert low - 1e-9 <= value <= 1 + 1e-9
        assert np.isclose(value, compute(name, predictions[order], labels[order]))
    assert compute("accuracy", labels, labels) == 1
    constant = np.ones_like(labels)
    assert compute("matthews_correlation", constant, labels) == 0


@given(SCORES)
def test_correlations_are_finite_and_within_one(pairs: list[tuple[float, float]]) -> None:
    predictions, labels = np.array(pairs).T
    for name in ("pearson", "spearman"):
        assert -1 - 1e-9 <= compute(name, predictions, labels) <= 1 + 1e-9
        assert compute(name, np.full(len(labels), 2.5), labels) == 0
        assert compute(name, np.full(len(labels), np.nan), labels) == 0


@given(st.integers(0, 10**6), st.floats(1e-8, 1), TEXT)
def test_where_a_run_works_does_not_change_its_name_and_what_it_computes_does(
    seed: int, rate: float, place: str
) -> None:
    config = DEFAULT
    elsewhere = replace(config, force=True, paths=replace(config.paths, results=f"x{place}"))
    assert signature(elsewhere) == signature(config)
    other = replace(config, seed=seed, train=replace(config.train, learning_rate=rate))
    assert (signature(other) == signature(config)) == (other == config)
    assert Path(signature(other)).name == signature(other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


NEEDED = {
    "schema": SCHEMA, "status": "running", "signature": "a", "task": "a", "model": "a",
    "method": "lora", "seed": 1, "scores": {}, "config": {},
}  # fmt: skip


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_record_comes_back_as_it_was_written(content: dict) -> None:
    record = {"more": content, **NEEDED}
    with tempfile.TemporaryDirectory() as folder:
        write_record(Path(folder), record)
        assert read_record(Path(folder)) == record
