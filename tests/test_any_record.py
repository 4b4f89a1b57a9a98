"""Whatever a record says, the report is made, and says so if the record cannot be used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import config, write

from dylora.results.loading import Material
from dylora.results.report import write_report
from dylora.results.runs import load_records

ODD = [
    None,
    True,
    -1,
    10**30,
    10**400,
    1e308,
    "",
    "<b>&",
    "x" * 5000,
    "\ud800",
    [],
    [1],
    {},
    {"": None},
]


def mutants(value: Any) -> Iterator[Any]:
    """Copies of a JSON value of which one part is odd, missing, or there under another name too."""
    yield from ODD
    if isinstance(value, dict):
        for key in value:
            yield {name: part for name, part in value.items() if name != key}
            yield value | {"<other>": value[key]}
            for mutant in mutants(value[key]):
                yield value | {key: mutant}
    if isinstance(value, list):
        for place in range(len(value)):
            for mutant in mutants(value[place]):
                yield [*value[:place], mutant, *value[place + 1 :]]


@pytest.mark.slow
def test_the_report_survives_any_record(tmp_path: Path) -> None:
    record = json.loads((write(tmp_path, config("mrpc", "dylora")) / "record.json").read_text())
    written = 0
    for written, mutant in enumerate(mutants(record), start=1):
        if isinstance(mutant, dict) and mutant.get("signature") == record["signature"]:
            mutant["signature"] = f"run-{written}"  # else most are copies that disagree
        path = tmp_path / "many" / str(written) / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(mutant))
    runs, problems = load_records(tmp_path / "many")
    assert len(runs) > 400 and len(problems) > 400, "mutants of both kinds are to be shown"
    assert written < len(runs) + len(problems) + 100, "all but a few equal copies"
    write_report(tmp_path / "report.html", Material(runs, (), {}, problems))
    page = (tmp_path / "report.html").read_text()
    assert "<b>&" not in page and "&lt;b&gt;&amp;" in page
