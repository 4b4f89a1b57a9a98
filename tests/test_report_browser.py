"""The report in a real headless browser: charts, toggles, keyboard, phone width, dark mode."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import config, write

from dylora.results.loading import Folders, load_material
from dylora.results.report import write_report

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1<\\script>"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1200,900"),
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all experiments with made-up runs, one of them hostile."""
    results = tmp_path_factory.mktemp("results")
    for seed in (1, 2, 3):
        write(results, config("mrpc", "full", seed))
        for rank in (1, 2, 8):
            write(results, config("mrpc", "lora", seed, rank))
        write(results, config("mrpc", "dylora", seed, 8))
        write(results, config("e2e", "dylora", seed, 4))
    write(results, config("rte", "dylora", 9, 4), task=EVIL, command=EVIL)
    write(results, config("rte", "lora"), status="failed", error=f"{EVIL} no memory", scores={})
    folders = Folders(
        str(results), *(str(ROOT / name) for name in ("experiments", "results/reference"))
    )
    write_report(results / "report.html", load_material(folders))
    return results / "report.html"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is absent")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium with chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture
def browser(started: Any, page: Path) -> Iterator[Any]:
    """The page, freshly loaded on a desktop; no test may leave an error in the console."""
    show(started, 1200, "light")
    started.get("about:blank")
    started.get(page.as_uri())
    yield started
    assert started.get_log("browser") == []


def show(driver: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # no smooth scrolling to wait for
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def panel(driver: Any, title: str) -> Any:
    for found in driver.find_elements("css selector", ".panel"):
        if found.find_element("css selector", "h3").text == title:
            return found
    raise AssertionError(title)


def readout(root: Any) -> str:
    return " ".join(root.find_element("css selector", "fieldset").text.split())


def test_every_experiment_is_there_and_a_link_opens_what_is_folded(browser: Any) -> None:
    for path in (ROOT / "experiments").glob("*.yaml"):
        if path.stem != "table8":  # hyper-parameters, without runs
            assert find(browser, f"#experiment-{path.stem}").tag_name == "details"
    table = find(browser, "#experiment-table2 table")
    assert not table.is_displayed()
    browser.execute_script("location.hash = 'experiment-table2'")
    assert table.is_displayed()


def test_the_first_screen_has_question_answer_chart_and_claims(browser: Any) -> None:
    for selector in ("h1", ".answer", ".opening .chart", ".claims .tag"):
        place = find(browser, selector).rect
        assert place["y"] + place["height"] < 900


def test_a_phones_first_screen_has_question_answer_and_chart(browser: Any) -> None:
    show(browser, 390, "light")
    for selector in ("h1", ".answer", ".opening .chart"):
        place = find(browser, selector).rect
        assert place["y"] + place["height"] < 667  # the smallest that is still sold


def test_a_small_chart_shows_its_legend_when_it_has_the_focus(browser: Any) -> None:
    root = panel(browser, "E2E, GPT-2 medium")
    legend = root.find_element("css selector", "fieldset")
    assert not legend.is_displayed()
    root.find_element("css selector", ".chart").send_keys("x")
    assert legend.is_displayed()


def test_the_navigation_stays_while_the_page_scrolls(browser: Any) -> None:
    browser.execute_script("window.scrollTo(0, 1500)")
    assert (
        browser.execute_script("return document.querySelector('nav').getBoundingClientRect().y")
        == 0
    )


def test_the_majoritys_score_is_a_line(browser: Any) -> None:
    assert find(browser, ".opening .majority").get_attribute("class") == "majority"
    assert "most frequent class alone: 50.0" in find(browser, ".opening .chart").text


def test_nothing_is_fetched_and_nothing_hostile_runs(browser: Any) -> None:
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert browser.execute_script(script) == []
    assert browser.execute_script("return window.hacked") is None
    assert EVIL in find(browser, "#curves").text


def test_hovering_reads_the_values_of_a_rank(browser: Any) -> None:
    from selenium.webdriver import ActionChains

    root = panel(browser, "MRPC, RoBERTa-base")
    chart = root.find_element("css selector", ".chart")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    left = 44 - chart.size["width"] // 2 + 3  # three pixels right of rank 1, from the middle
    ActionChains(browser).move_to_element_with_offset(chart, left, 0).perform()
    text = readout(root)
    assert text.startswith("rank 1 ")
    assert re.search(r"DyLoRA 91\.40 \[90\.16, 92\.64\] n=3", text)  # 4.303 * 0.5 / sqrt(3)
    assert "LoRA truncated 35.40" in text and "Full fine-tuning 91.00" in text


def test_a_chart_is_read_with_the_arrow_keys(browser: Any) -> None:
    from selenium.webdriver import Keys

    root = panel(browser, "MRPC, RoBERTa-base")
    chart = root.find_element("css selector", ".chart")
    chart.send_keys(Keys.HOME)
    assert readout(root).startswith("rank 1 ")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert readout(root).startswith("rank 3 ")
    assert chart.get_attribute("aria-valuenow") == "3"
    assert "DyLoRA 92.20" in (chart.get_attribute("aria-valuetext") or "")


def test_a_method_is_switched_off_and_on_from_the_keyboard(browser: Any) -> None:
    from selenium.webdriver import Keys

    root = panel(browser, "MRPC, RoBERTa-base")

    def drawn() -> set[str]:
        groups = root.find_elements("css selector", "g[data-series]")
        return {group.get_attribute("data-series") for group in groups}

    everything = drawn()
    assert {"DyLoRA", "LoRA truncated", "Full fine-tuning"} < everything
    box = root.find_elements("css selector", "input")[1]
    box.send_keys(Keys.SPACE)
    assert drawn() == everything - {"LoRA truncated"}
    assert not re.search(r"LoRA truncated \d", readout(root))
    box.send_keys(Keys.SPACE)
    assert drawn() == everything


def test_a_runs_history_is_drawn_and_read_as_the_other_charts(browser: Any) -> None:
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    root = find(browser, ".run [data-run]")
    browser.execute_script("for (let e = arguments[0]; e; e = e.parentElement) e.open = true", root)
    assert root.find_element("css selector", "h3").text == "Training"
    # It is drawn when it has a size, after the page's next frame.
    WebDriverWait(browser, 30).until(lambda _: root.find_elements("css selector", "path.line"))
    root.find_element("css selector", ".chart").send_keys(Keys.HOME)
    assert re.match(r"step \d+ loss \d", readout(root))


def test_another_metric_is_drawn(browser: Any) -> None:
    root = panel(browser, "E2E, GPT-2 medium")
    root.find_element("css selector", ".chart").send_keys("x")
    assert "DyLoRA 64.82" in readout(root)
    root.find_element("css selector", "option[value=ROUGE_L]").click()
    assert root.find_elements("css selector", "path.line")


def test_focus_is_visible_wherever_the_tab_key_leads(browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    style = "const s = getComputedStyle(document.activeElement); return s.outline"
    kinds = set()
    find(browser, "#curves .panel select, #curves .chart").send_keys(Keys.SHIFT)
    for _ in range(12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        kinds.add(browser.switch_to.active_element.tag_name)
        assert re.search(r"solid ([2-9]|\d\d)", browser.execute_script(style))
    assert {"input", "svg"} <= kinds


def test_a_value_opens_its_runs_and_their_commands_are_copied(browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    fake = "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
    browser.execute_script(fake)
    find(browser, "#experiment-table2 > summary").click()
    button = find(browser, "#experiment-table2 td button")
    button.send_keys(Keys.ENTER)
    dialog = find(browser, "dialog")
    assert dialog.is_displayed()
    heading = dialog.find_element("css selector", "h3").text
    assert heading == "LoRA, ours (RoBERTa-base) · rank 1 · MRPC F1"
    assert len(dialog.find_elements("css selector", "code")) == 3
    dialog.find_element("css selector", "button.copy").click()
    assert browser.execute_script("return window.copied") == "python run.py task=mrpc method=lora"
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not dialog.is_displayed()


def test_a_link_to_a_run_opens_it(browser: Any) -> None:
    find(browser, "#experiment-table2 > summary").click()
    find(browser, "#experiment-table2 td button").click()
    link = find(browser, "dialog a")
    target = link.get_attribute("hash")
    link.click()
    assert find(browser, target).get_attribute("open") is not None
    assert not find(browser, "dialog").is_displayed()


def test_runs_are_filtered(browser: Any) -> None:
    find(browser, "#filter").send_keys("e2e dylora")
    runs = browser.find_elements("css selector", ".run")
    assert sum(run.is_displayed() for run in runs) == 3
    assert find(browser, "#left").text == "3 shown"


def test_generations_stand_side_by_side_at_two_ranks(browser: Any) -> None:
    root = find(browser, ".samples")
    opening = "for (let e = arguments[0]; e; e = e.parentElement) e.open = true"
    browser.execute_script(opening, root)
    lines = root.find_elements("css selector", "p")
    assert (lines[0].text, lines[1].text) == (
        "The Vaults is a pub . (0)",
        "The Vaults is a cheap pub near Café Adriatic . (0)",
    )
    assert lines[0].location["y"] == lines[1].location["y"]
    root.find_elements("css selector", "select")[1].send_keys("1")
    lines = root.find_elements("css selector", "p")
    assert lines[0].text == lines[1].text
    assert {line.get_attribute("class") for line in lines} == {"same"}


@pytest.mark.parametrize("width", [360, 1200])
def test_no_width_needs_scrolling_sideways(browser: Any, width: int) -> None:
    show(browser, width, "light")
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true;")
    script = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
    assert browser.execute_script(script) == 0
    assert browser.execute_script("return innerWidth") == width  # a phone would zoom out
    chart = panel(browser, "MRPC, RoBERTa-base").find_element("css selector", ".chart")
    assert 250 < chart.size["width"] < width


CONTRAST = """
const channel = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = (color) => {
  const [r, g, b] = color.match(/[\\d.]+/g).map((v) => channel(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (color !== "rgba(0, 0, 0, 0)") return color;
  }
};
const lowest = {};
document.querySelectorAll("details").forEach((d) => { d.open = true; });
for (const element of document.querySelectorAll("body *:not(script, svg *, dialog *)")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.getClientRects().length) continue;
  const text = light(getComputedStyle(element).color) + 0.05, paper = light(ground(element)) + 0.05;
  const ratio = Math.max(text, paper) / Math.min(text, paper);
  const name = element.tagName + "." + element.className;
  lowest[name] = Math.min(lowest[name] ?? 99, ratio);
}
return [getComputedStyle(document.body).backgroundColor, lowest];
"""


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_all_text_has_the_contrast_of_wcag_aa(browser: Any, scheme: str, dark: bool) -> None:
    show(browser, 1200, scheme)
    ground, lowest = browser.execute_script(CONTRAST)
    assert (int(re.findall(r"\d+", ground)[0]) < 128) == dark
    assert len(lowest) > 20
    assert {name: ratio for name, ratio in lowest.items() if ratio < 4.5} == {}
