"""The report's charts as data; templates/report.js draws them, all by the same code.

A chart has an axis x, one or more metrics, and series with points of x for each metric.
"""

from collections.abc import Sequence
from typing import Any

from dylora.metrics import metric_named
from dylora.results.curves import Panel, Series, band
from dylora.results.run_view import Course

LOOKS = 7  # colors, line styles and marks in templates/report.css and report.js


def panel_chart(panel: Panel) -> dict[str, Any]:
    """Scores against the rank, with bands and the majority's score."""
    return {
        "title": panel.title,
        "axis": "rank",
        "metrics": [{"name": name, "label": metric_named(name).axis} for name in panel.metrics],
        "series": [_series(series, panel.metrics) for series in panel.series],
        "majority": panel.majority,
    }


def course_chart(course: Course) -> dict[str, Any]:
    """A value against the step or epoch of one run."""
    return {
        "title": course.title,
        "axis": course.axis,
        "metrics": [{"name": "", "label": course.label}],
        "series": [
            {
                "name": name,
                "look": number % LOOKS,
                "mark": number % LOOKS,
                "flat": False,
                "points": {"": [_point(x, y) for x, y in line]},
            }
            for number, (name, line) in enumerate(course.lines.items())
        ],
        "majority": {},
    }


def _series(series: Series, metrics: Sequence[str]) -> dict[str, Any]:
    points: dict[str, list[dict[str, float | None]]] = {}
    for metric in metrics:
        for rank, summary in series.summary(metric).items():
            low, high = band(summary, metric) or (None, None)
            points.setdefault(metric, []).append(_point(rank, summary.mean, low, high, summary.n))
    return {
        "name": series.name,
        "look": series.look % LOOKS,
        "mark": (series.look + series.look // LOOKS) % LOOKS,  # tells equal colors apart
        "flat": series.flat,
        "points": points,
    }


def _point(
    x: float, mean: float, low: float | None = None, high: float | None = None, n: int = 1
) -> dict[str, float | None]:
    return {"x": x, "mean": mean, "low": low, "high": high, "n": n}
