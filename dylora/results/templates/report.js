"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const MARKS = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-3.5-3.5h7v7h-7z", "M0-4.5L4.5 3.5h-9z",
  "M-3-3L3 3M-3 3L3-3", "M0-5L5 0L0 5L-5 0z", "M0 4.5L4.5-3.5h-9z", "M-4.5 0h9M0-4.5v9",
];

function make(name, attributes, parent, text) {
  const svg = parent instanceof SVGElement || name === "svg";
  const element = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function round(value, step) {
  return value.toFixed(Math.max(0, Math.min(4, Math.ceil(-Math.log10(step) - 1e-9))));
}

// About `count` round numbers from low to high, and their distance.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) found.push(tick);
  return [found, step];
}

// A chart: values against the rank (or a run's steps), with a reading line and a legend
// that toggles the series and says their values there.
class Chart {
  constructor(root, panel) {
    this.panel = panel;
    this.svg = root.querySelector("svg");
    this.legend = root.querySelector("legend");
    this.values = root.querySelectorAll(".value");
    this.metric = panel.metrics[0].name;
    this.ranked = panel.axis === "rank";
    this.hidden = new Set();
    this.at = this.stops.at(-1);
    root.querySelectorAll("input").forEach((input, number) => input.addEventListener("change", () => {
      this.hidden[input.checked ? "delete" : "add"](number);
      this.draw();
    }));
    root.querySelector("select")?.addEventListener("change", (event) => {
      this.metric = event.target.value;
      this.draw();
    });
    this.svg.addEventListener("pointermove", (event) => this.read(this.nearest(event)));
    this.svg.addEventListener("pointerdown", (event) => this.read(this.nearest(event)));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  get shown() {
    return this.panel.series
      .map((series, number) => ({ ...series, number, points: series.points[this.metric] ?? [] }))
      .filter((series) => series.points.length && !this.hidden.has(series.number));
  }

  // Where there are points; rank 0 is that of a method without ranks.
  get stops() {
    const all = this.panel.series.flatMap((series) => series.points[this.metric] ?? []);
    const found = [...new Set(all.map((point) => point.x))].filter((x) => x > 0 || !this.ranked);
    return found.length ? found.sort((a, b) => a - b) : [1];
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!width) return;
    const stops = this.stops, first = stops[0], last = stops.at(-1), shown = this.shown;
    const values = shown.flatMap((s) => s.points.flatMap((p) => [p.mean, p.low ?? p.mean, p.high ?? p.mean]));
    const majority = this.panel.majority[this.metric];
    if (majority !== undefined) values.push(majority);
    let low = Math.min(...values), high = Math.max(...values);
    if (!values.length) [low, high] = [0, 1];
    const room = Math.max((high - low) * 0.06, Math.abs(high) * 0.002, 1e-3);
    [low, high] = [low - room, high + room];
    const scale = this.ranked && last > 16 ? Math.log2 : (x) => x;
    const span = scale(last) - scale(first) || 1;
    this.x = (x) => 44 + ((scale(x) - scale(first)) / span) * (width - 60);
    this.y = (value) => 10 + ((high - value) / (high - low)) * (height - 42);
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.axes(low, high, width, height, stops);
    if (majority !== undefined) this.baseline(majority, width);
    for (const series of shown) this.line(series, width);
    this.cursor = make("line", { class: "cursor", y1: 10, y2: height - 32 }, this.svg);
    this.svg.setAttribute("aria-valuemin", first);
    this.svg.setAttribute("aria-valuemax", last);
    this.read(this.at);
  }

  axes(low, high, width, height, stops) {
    const [marks, step] = ticks(low, high, 5);
    for (const mark of marks) {
      make("line", { class: "grid", x1: 44, x2: width - 16, y1: this.y(mark), y2: this.y(mark) }, this.svg);
      make("text", { x: 34, y: this.y(mark) + 4, "text-anchor": "end" }, this.svg, round(mark, step));
    }
    const last = stops.at(-1), powers = stops.filter((x) => Math.log2(x) % 1 === 0);
    const [even, apart] = this.ranked ? [last > 16 ? powers : stops, 1] : ticks(stops[0], last, 5);
    for (const x of even) {
      make("text", { x: this.x(x), y: height - 16, "text-anchor": "middle" }, this.svg, round(x, apart));
    }
    make("line", { class: "axis", x1: 44, x2: width - 16, y1: height - 32, y2: height - 32 }, this.svg);
    make("text", { x: width - 16, y: height - 2, "text-anchor": "end" }, this.svg, this.panel.axis);
  }

  baseline(value, width) {
    const y = this.y(value);
    make("line", { class: "majority", x1: 44, x2: width - 16, y1: y, y2: y }, this.svg);
    const above = y > 24 ? y - 5 : y + 14;
    make("text", { x: width - 16, y: above, "text-anchor": "end" }, this.svg, `most frequent class alone: ${value.toFixed(1)}`);
  }

  line(series, width) {
    const group = make("g", { class: `s${series.look}`, "data-series": series.name }, this.svg);
    const { points } = series;
    if (series.flat) {
      const y = this.y(points[0].mean);
      make("line", { class: "line", x1: 44, x2: width - 16, y1: y, y2: y }, group);
      return;
    }
    const at = (x, value) => `${this.x(x).toFixed(1)} ${this.y(value).toFixed(1)}`;
    const banded = points.filter((point) => point.low !== null);
    if (banded.length > 1) {
      const there = banded.map((p) => at(p.x, p.high)), back = banded.map((p) => at(p.x, p.low));
      make("path", { class: "band", d: `M${[...there, ...back.reverse()].join("L")}z` }, group);
    }
    make("path", { class: "line", d: `M${points.map((p) => at(p.x, p.mean)).join("L")}` }, group);
    for (const point of points.length > 32 ? [] : points) {
      const [x, y] = at(point.x, point.mean).split(" ");
      const attributes = { class: "dot", d: MARKS[series.mark], transform: `translate(${x} ${y})` };
      make("path", { ...attributes, "data-x": point.x }, group);
    }
  }

  nearest(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    return this.stops.reduce((a, b) => (Math.abs(this.x(b) - x) < Math.abs(this.x(a) - x) ? b : a));
  }

  key(event) {
    const stops = this.stops, now = stops.indexOf(this.at);
    const moved = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1,
      Home: 0, End: stops.length - 1 }[event.key];
    if (moved === undefined) return;
    event.preventDefault();
    this.read(stops[Math.max(0, Math.min(stops.length - 1, moved))]);
  }

  read(x) {
    this.at = x;
    this.cursor.setAttribute("x1", this.x(x));
    this.cursor.setAttribute("x2", this.x(x));
    this.svg.querySelectorAll(".dot").forEach((dot) =>
      dot.classList.toggle("at", Number(dot.dataset.x) === x));
    this.legend.textContent = `${this.panel.axis} ${x}`;
    this.values.forEach((value) => value.replaceChildren());
    const said = [this.legend.textContent];
    for (const series of this.shown) {
      const point = series.points.find((p) => p.x === x || series.flat);
      if (!point) continue;
      const value = this.values[series.number];
      make("b", {}, value, this.ranked ? point.mean.toFixed(2) : point.mean.toPrecision(3));
      if (point.low !== null) value.append(` [${point.low.toFixed(2)}, ${point.high.toFixed(2)}]`);
      if (point.n > 1) make("span", { class: "muted" }, value, ` n=${point.n}`);
      said.push(`${series.name} ${value.textContent}`);
    }
    this.svg.setAttribute("aria-valuenow", x);
    this.svg.setAttribute("aria-valuetext", said.join(", "));
  }
}

document.querySelectorAll(".panel").forEach((root) => {
  const { run, panel } = root.dataset;
  new Chart(root, (run === undefined ? data.panels : data.courses[run])[panel]);
});

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch { // no permission, or an old browser on a local file
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// What stands behind a value of a table: its runs and how to make them again.
const dialog = document.getElementById("behind");
function showRuns(button) {
  const row = button.closest("tr"), rank = row.cells[1]?.textContent.trim();
  const heading = button.closest("table").tHead.rows[0].cells[button.closest("td").cellIndex];
  dialog.querySelector("h3").textContent = [row.cells[0].firstChild.textContent.trim(),
    rank && `rank ${rank}`, heading.textContent.trim()].filter(Boolean).join(" · ");
  const list = dialog.querySelector("div");
  list.replaceChildren();
  for (const number of button.dataset.runs.split(" ")) {
    const run = document.getElementById(`run-${number}`);
    const line = make("p", { class: "mono" }, list);
    make("a", { href: `#run-${number}` }, line, run.dataset.name);
    const box = make("div", { class: "command" }, list);
    make("code", {}, box, run.querySelector(".command code").textContent);
    make("button", { type: "button", class: "copy" }, box, "Copy");
  }
  dialog.showModal();
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target?.tagName !== "DETAILS") return;
  target.hidden = false;
  target.open = true;
  if (target.parentElement.tagName === "DETAILS") target.parentElement.open = true;
  target.scrollIntoView();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.classList.contains("copy")) copy(button);
  else if (button?.dataset.runs) showRuns(button);
  if (event.target.closest("dialog a")) dialog.close();
  if (event.target === dialog) dialog.close();
});
addEventListener("hashchange", openTarget);
openTarget();

document.getElementById("filter")?.addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  let left = 0;
  for (const run of document.querySelectorAll(".run")) {
    const text = run.querySelector("summary").textContent.toLowerCase();
    run.hidden = !words.every((word) => text.includes(word));
    left += !run.hidden;
  }
  for (const place of document.querySelectorAll(".place")) {
    const found = place.querySelector(".run:not([hidden])") !== null;
    place.hidden = !found;
    place.open = found && words[0] !== "";
  }
  document.getElementById("left").textContent = `${left} shown`;
});

// Two ranks of a generation run side by side.
function showSamples(root) {
  const texts = data.samples[root.dataset.run];
  const [a, b] = [...root.querySelectorAll("select")].map((select) => texts[select.value]);
  root.querySelectorAll("p").forEach((line) => line.remove());
  a.forEach((text, i) => {
    const same = text === b[i] ? "same" : "";
    make("p", { class: same }, root, text || "(empty)");
    make("p", { class: same }, root, b[i] || "(empty)");
  });
}
document.querySelectorAll(".samples").forEach((root) => {
  root.addEventListener("change", () => showSamples(root));
  showSamples(root);
});
