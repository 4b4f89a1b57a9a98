"""Figures from made-up records: the right numbers in files that print well."""

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from runs import config, write

from dylora.methods import METHODS
from dylora.results.curves import Panel, panels
from dylora.results.drawing import COLORS, style
from dylora.results.figures import scores_figure, spectra_figure, time_figure, write_figures
from dylora.results.runs import load_records
from dylora.results.spectra import singular_values

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install 'dylora[report]'")
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "make_figures.py"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three seeds of DyLoRA, LoRA at ranks 1, 2 and 4, and full fine-tuning on MRPC."""
    for seed in (1, 2, 3):
        write(tmp_path, config("mrpc", "dylora", seed))
        write(tmp_path, config("mrpc", "full", seed))
        for rank in (1, 2, 4):
            write(tmp_path, config("mrpc", "lora", seed, rank))
    return tmp_path


def panel_of(results: Path) -> Panel:
    (panel,) = panels(load_records(results / "records")[0])
    return panel


def heights(line: "Line2D") -> np.ndarray:
    return np.asarray(line.get_ydata(), dtype=float)


def test_importing_figures_loads_neither_torch_nor_matplotlib() -> None:
    code = "import sys, dylora.results.figures; print(*({'torch', 'matplotlib'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_kind_is_written_as_png_and_pdf(results: Path) -> None:
    runs, _ = load_records(results / "records")
    drawn = write_figures(runs, results / "figures")
    written = drawn.files
    assert not drawn.problems and not drawn.not_drawn
    assert sorted(path.name for path in written) == [
        f"{kind}.MRPC_RoBERTa-base.{ending}"
        for kind in ("scores", "spectra", "time")
        for ending in ("pdf", "png")
    ]
    assert sorted(results.glob("figures/*")) == sorted(written)  # and nothing half-written
    for path in written:
        start = path.read_bytes()[:4]
        assert start == (b"%PDF" if path.suffix == ".pdf" else b"\x89PNG")


def test_equal_records_give_equal_files(results: Path) -> None:
    runs, _ = load_records(results / "records")
    first, second = (write_figures(runs, results / name).files for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_scores_are_means_over_seeds_with_a_band(results: Path) -> None:
    panel = panel_of(results)
    figure = scores_figure(panel, [])
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rank", "accuracy (%)")
    line = next(line for line in ax.lines if str(line.get_label()).startswith("DyLoRA"))
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(heights(line), 91 + 0.4 * np.arange(1, 5))
    assert len(ax.collections) == 3  # bands of DyLoRA, LoRA truncated, LoRA at each rank


def test_each_line_is_labeled_at_its_end_with_the_number_of_seeds(results: Path) -> None:
    figure = scores_figure(panel_of(results), [])
    assert not figure.legends
    texts = {re.sub(r"\s", " ", text.get_text()) for text in figure.axes[1].texts}
    assert texts == {
        "DyLoRA (3 seeds)",
        "LoRA truncated (3 seeds)",
        "LoRA trained at each rank (3 seeds)",
        "Full fine-tuning (3 seeds)",
        "most frequent class",
    }
    places = sorted(t.xy[1] for t in figure.axes[1].texts if "seeds" in t.get_text())  # type: ignore[attr-defined]
    low, high = figure.axes[1].get_ylim()
    assert min(np.diff(places)) >= 0.1 * (high - low)
    assert low <= places[0] and places[-1] <= high


def test_the_gap_to_a_lora_of_the_rank_has_an_axis_of_its_own(results: Path) -> None:
    panel = panel_of(results)
    gaps = scores_figure(panel, []).axes[-1]
    assert "minus that of\nLoRA trained at each rank" in gaps.get_ylabel()
    dylora = gaps.lines[0]
    np.testing.assert_array_equal(dylora.get_xdata(), [1, 2, 4])
    np.testing.assert_allclose(heights(dylora), 0, atol=1e-9)  # both as `runs.score` has them
    np.testing.assert_allclose(heights(gaps.lines[1])[:2], [-24, -16])


def test_no_band_is_claimed_where_there_is_none(tmp_path: Path, results: Path) -> None:
    assert "95%" in str(scores_figure(panel_of(results), [])._supxlabel.get_text())  # type: ignore[attr-defined]
    alone = tmp_path / "alone"
    write(alone, config("rte", "dylora"))
    figure = scores_figure(panel_of(alone), [])
    assert figure._supxlabel.get_text() == "mean over seeds"  # type: ignore[attr-defined]


def test_what_is_not_drawn_is_told_with_the_reason(tmp_path: Path) -> None:
    (write(tmp_path, config("mrpc", "dylora")) / "adapter.safetensors").unlink()
    drawn = write_figures(load_records(tmp_path / "records")[0], tmp_path / "figures")
    assert len(drawn.files) == 2
    assert [line.partition(":")[0] for line in drawn.not_drawn] == [
        "time of MRPC, RoBERTa-base",
        "spectra of MRPC, RoBERTa-base",
    ]
    assert "LoRA trained at two ranks" in drawn.not_drawn[0]


def test_series_differ_in_color_line_style_and_marker_so_that_print_needs_no_color() -> None:
    looks = [style(number) for number in range(len(COLORS))]
    for part in ("color", "linestyle", "marker"):
        assert len({str(look[part]) for look in looks}) == len(looks)
    assert len({str(sorted(style(n).items(), key=str)) for n in range(20)}) == 20


def test_time_of_lora_adds_up_over_ranks_and_dylora_is_paid_once(results: Path) -> None:
    figure = time_figure(panel_of(results), [])
    assert not isinstance(figure, str)
    lines = {str(line.get_label()).split(" (")[0]: line for line in figure.axes[0].lines}
    # Three seeds trained for 101, 102 and 103 s; of 5 s of scoring, a rank's own part.
    per_rank = np.array([102 + 5 / 1, 102 + 5 / 2, 102 + 5 / 4]) / 3600
    np.testing.assert_allclose(heights(lines["LoRA trained at each rank"]), np.cumsum(per_rank))
    once = lines["DyLoRA"]
    np.testing.assert_allclose(heights(once), np.full(4, 107 / 3600))


def test_times_of_another_device_are_left_out(results: Path) -> None:
    gpu = {"name": "NVIDIA H100", "threads": 8}
    write(results, config("mrpc", "dylora", 4), device=gpu)
    figure = time_figure(panel_of(results), [])
    assert not isinstance(figure, str)
    labels = [str(line.get_label()) for line in figure.axes[0].lines]
    assert "DyLoRA (3 seeds)" in labels


def test_without_lora_at_several_ranks_there_is_no_time_to_compare(tmp_path: Path) -> None:
    write(tmp_path, config("mrpc", "dylora"))
    write(tmp_path, config("mrpc", "lora"))
    assert isinstance(time_figure(panel_of(tmp_path), []), str)


@pytest.mark.parametrize("method", ["lora", "dylora"])
def test_singular_values_are_those_of_the_scaled_delta(tmp_path: Path, method: str) -> None:
    from safetensors.numpy import load_file

    folder = write(tmp_path, config("mrpc", method))
    (run,) = load_records(tmp_path / "records")[0]
    tensors = load_file(folder / "adapter.safetensors")
    found = singular_values(run)
    assert sorted(found) == [1, 2, 4]
    for b, values in found.items():
        A, B = tensors["layer.1.value.lora_A"][:b], tensors["layer.1.value.lora_B"][:, :b]
        weights = METHODS[method].weights(b, 4, run.option("method.alpha"))
        expected = np.linalg.svd(B @ np.diag(weights) @ A, compute_uv=False)[:b]
        np.testing.assert_allclose(values[1], expected, rtol=1e-5)


def test_a_damaged_adapter_is_named_and_the_rest_is_drawn(results: Path) -> None:
    folder = write(results, config("mrpc", "dylora", 1))
    (folder / "adapter.safetensors").write_bytes(b"half")
    runs, _ = load_records(results / "records")
    drawn = write_figures(runs, results / "figures")
    (problem,) = drawn.problems
    assert problem.path == folder / "adapter.safetensors"
    assert len(drawn.files) == 6


def test_without_adapters_there_are_no_spectra(results: Path) -> None:
    for path in results.glob("records/*/adapter.safetensors"):
        path.unlink()
    assert isinstance(spectra_figure(panel_of(results), []), str)


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path, config("mrpc", "dylora"), task="../../x", model="a/b")
    runs, _ = load_records(tmp_path / "records")
    drawn = write_figures(runs, tmp_path / "figures")
    assert {path.parent for path in drawn.files} == {tmp_path / "figures"}


def test_the_script_reports_a_half_written_record_and_draws_the_rest(results: Path) -> None:
    broken = results / "records" / "broken" / "record.json"
    broken.parent.mkdir()
    broken.write_text('{"schema": 1, "sta')
    command = [sys.executable, str(SCRIPT), f"paths.results={results}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert f"left out: {broken}" in done.stderr
    assert "scores.MRPC_RoBERTa-base.pdf" in done.stdout
    assert "Traceback" not in done.stderr
