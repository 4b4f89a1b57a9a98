"""Hyper-parameters as `dylora run task=... model=...` uses them, from the files of conf/."""

from collections.abc import Mapping, Sequence

import numpy as np
from omegaconf import DictConfig, OmegaConf

from dylora.errors import UserError
from dylora.results.composing import compose_settings
from dylora.results.layout import CONF, SettingsLayout
from dylora.results.names import model_name
from dylora.results.published import Published
from dylora.results.tables.cells import DASH, Cell, Row, Table, published_row
from dylora.suite.config import Kind


def settings_tables(
    layout: SettingsLayout, published: Mapping[str, Sequence[Published]]
) -> list[Table]:
    """One table for each protocol and model: our settings, under each the published ones.

    `published` has the rows by the name of their file. Raises UserError for a model that conf/ does
    not have.
    """
    tables = []
    for protocol, models in layout.models.items():
        names = layout.published.get(protocol, [])
        rows = [row for name in names for row in published.get(name, [])]
        for model, tasks in models.items():
            if not (CONF / "model" / f"{model}.yaml").exists():
                raise UserError(f"layout.models: there is no {model} in conf/model; mend its name")
            composed = [compose_settings(task, model, protocol) for task in tasks]
            tables.append(
                Table(
                    title=f"{layout.title} ({model_name(model)}, protocol={protocol})",
                    model=model,
                    header=["Option", "From", *tasks],
                    rows=_rows(layout, composed, [row for row in rows if model in row.models]),
                    notes=layout.notes,
                    of_runs=False,
                )
            )
    return tables


def _rows(
    layout: SettingsLayout, composed: Sequence[DictConfig], published: Sequence[Published]
) -> list[Row]:
    """A row for each option that any task has or any source gives, the sources' rows under it."""
    rows = []
    for option, heading in layout.options.items():
        cells = [Cell(_text(config, option)) for config in composed]
        known = [row for row in published if row.name == option]
        if known or any(cell.text != DASH for cell in cells):
            rows.append(Row(heading, "conf/", cells, block=heading))
            tasks = [config.task.name for config in composed]
            for row in known:
                texts = published_row(row, tasks, row.models[0]).cells
                rows.append(Row(heading, "", texts, row, heading))
    return rows


def _text(config: DictConfig, option: str) -> str:
    """An option's value where it has an effect, else a dash."""
    if option.startswith("task.decode.") and config.task.kind != Kind.generation:
        return DASH
    if option == "train.warmup_ratio" and config.train.warmup_steps is not None:
        return DASH
    if option == "batch":
        return str(config.train.batch_size * config.train.accumulation)
    value = OmegaConf.select(config, option)
    if value is None:
        return DASH
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        return np.format_float_scientific(value, trim="-", exp_digits=1)
    return f"{value:g}" if isinstance(value, float) else str(value)
