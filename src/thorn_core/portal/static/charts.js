// Activity: bars of outcomes and lines of latencies, drawn as SVG so that colours follow the theme.
// Each chart also offers its numbers as a table.

import { get, hookPath } from "./api.js";
import { busy, duration, el, plural, problemBox, svg, whole } from "./dom.js";

const PERIODS = { hour: "1 hour", day: "24 hours", week: "7 days", month: "30 days" };
const OUTCOMES = ["delivered", "waiting", "failed", "cancelled"];
const PERCENTILES = ["p50", "p95", "p99"];
const HEIGHT = 150;
const EDGE = { left: 52, right: 8, top: 10, bottom: 22 };
// Pixels: the width of a label of the time axis, and the smallest visible bar.
const LABEL = 72;
const LEAST = 2;

export function charts(id, query) {
  let period = query.get("period") in PERIODS ? query.get("period") : "day";
  const drawn = el("div", { class: "charts", "aria-live": "off" });
  async function refresh() {
    try {
      const { value } = await get(hookPath(id, "stats"), new URLSearchParams({ period }));
      drawn.replaceChildren(...picture(value, period));
    } catch (error) {
      drawn.replaceChildren(problemBox(error));
    }
  }
  const choose = (event) => {
    period = event.currentTarget.value;
    const [path, before = ""] = location.hash.split("?");
    const wanted = new URLSearchParams(before);
    wanted.set("period", period);
    history.replaceState(null, "", `${path}?${wanted}`);
    busy(event.currentTarget, refresh);
  };
  const choices = el("fieldset", { class: "periods" }, el("legend", { class: "unseen" }, "Period"),
    Object.entries(PERIODS).map(([name, words]) => el("label", {},
      el("input", { type: "radio", name: "period", value: name, checked: name === period, onchange: choose }), el("span", {}, words))));
  const element = el("section", { "aria-labelledby": "charts" },
    el("div", { class: "title" }, el("h2", { id: "charts" }, "Activity"), choices), drawn);
  return { element, refresh };
}

function picture(stats, period) {
  const { periods } = stats;
  const sums = OUTCOMES.map((name) => [name, periods.reduce((sum, each) => sum + each[name], 0)]);
  const all = sums.reduce((sum, [, count]) => sum + count, 0);
  const told = all
    ? `${plural(all, "delivery", "deliveries")}: ${sums.filter(([, count]) => count).map(([name, count]) => `${whole(count)} ${name}`).join(", ")}`
    : "No deliveries in this period.";
  const times = timesOf(stats, period);
  const latencies = periods.some((each) => each.latency);
  return [
    !stats.complete && el("p", { class: "quiet" }, `Showing the latest ${whole(all)} deliveries only.`),
    chart({
      title: "Deliveries", periods, times, names: OUTCOMES, told,
      value: (each, name) => each[name], format: whole, draw: bars, integer: true,
      most: Math.max(...periods.map((each) => OUTCOMES.reduce((sum, name) => sum + each[name], 0))),
    }),
    latencies && chart({
      title: "Response time", periods, times, names: PERCENTILES,
      told: "Response time of recipients: median, 95th and 99th percentile.",
      value: (each, name) => each.latency?.[name] ?? null, format: duration, draw: curves,
      most: Math.max(...periods.map((each) => each.latency?.p99 ?? 0)),
    }),
  ].filter(Boolean);
}

// -- one chart: as wide as its container, read by pointer or arrow keys

function chart(what) {
  const readout = el("p", { class: "readout", "aria-live": "polite" }, what.told);
  const drawing = svg("svg", { tabindex: "0", role: "img", "aria-label": `${what.title}. ${what.told} Use the arrow keys to read values.`, height: HEIGHT });
  let place = null;
  let scale = null;
  const read = (wanted) => {
    place = wanted === null ? null : Math.min(Math.max(wanted, 0), what.periods.length - 1);
    drawing.querySelector(".cursor")?.remove();
    if (place === null) {
      readout.textContent = what.told;
      return;
    }
    drawing.prepend(svg("rect", { class: "cursor", x: scale.x(place), y: EDGE.top, width: scale.pitch, height: scale.height }));
    readout.textContent = `${what.times.span(place)}: ${words(what, place)}`;
  };
  drawing.addEventListener("pointermove", (event) => {
    read(Math.floor((event.clientX - drawing.getBoundingClientRect().left - EDGE.left) / scale.pitch));
  });
  drawing.addEventListener("pointerleave", () => read(null));
  drawing.addEventListener("blur", () => read(null));
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    read(place === null ? what.periods.length - 1 : place + step);
  });
  new ResizeObserver(([entry]) => {
    scale = scaleOf(what, entry.contentRect.width);
    drawing.setAttribute("viewBox", `0 0 ${scale.width} ${HEIGHT}`);
    drawing.replaceChildren(...axes(what, scale), ...what.draw(what, scale));
  }).observe(drawing);
  return el("figure", {},
    el("figcaption", {}, el("h3", {}, what.title), legend(what.names)),
    drawing, readout, numbers(what));
}

function words(what, place) {
  const there = what.names.map((name) => [name, what.value(what.periods[place], name)]).filter(([, value]) => value);
  return there.length ? there.map(([name, value]) => `${name} ${what.format(value)}`).join(", ") : "none";
}

const legend = (names) => el("ul", { class: "legend" }, names.map((name) =>
  el("li", {}, svg("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" },
    svg("rect", { class: `fill ${name}`, width: 10, height: 10, rx: 2 })), name)));

function numbers(what) {
  const filled = what.periods.map((each, n) => [each, n])
    .filter(([each]) => what.names.some((name) => what.value(each, name)));
  if (filled.length === 0) return null;
  const cell = (value) => (value === null ? "" : what.format(value));
  return el("details", { class: "more" }, el("summary", {}, "Show as table"),
    el("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": `${what.title} as a table` },
      el("table", {}, el("thead", {}, el("tr", {}, ["Time", ...what.names].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, filled.map(([each, n]) => el("tr", {}, el("th", { scope: "row" }, what.times.span(n)),
          what.names.map((name) => el("td", {}, cell(what.value(each, name))))))))));
}

// -- scales and axes

function scaleOf(what, width) {
  const inner = Math.max(width - EDGE.left - EDGE.right, 1);
  const height = HEIGHT - EDGE.top - EDGE.bottom;
  const pitch = inner / what.periods.length;
  const ticks = ticksOf(what.most, what.integer);
  const top = ticks.at(-1);
  return {
    width, height, pitch, ticks,
    x: (n) => EDGE.left + n * pitch,
    y: (value) => EDGE.top + height * (1 - value / top),
  };
}

// Round numbers from 0 up to the maximum or slightly above.
function ticksOf(most, integer) {
  const raw = (most || 1) / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  const found = [1, 2, 5, 10].find((n) => n * power >= raw) * power;
  const step = integer ? Math.max(1, Math.round(found)) : found;
  const count = Math.max(1, Math.ceil((most || 1) / step - 1e-9));
  return Array.from({ length: count + 1 }, (_, n) => n * step);
}

function axes(what, scale) {
  const every = Math.max(1, Math.ceil(LABEL / scale.pitch));
  const lines = scale.ticks.flatMap((tick) => [
    svg("line", { class: "grid", x1: EDGE.left, x2: scale.width - EDGE.right, y1: scale.y(tick), y2: scale.y(tick) }),
    svg("text", { class: "tick", x: EDGE.left - 6, y: scale.y(tick) + 4, "text-anchor": "end" }, what.format(tick)),
  ]);
  const labels = what.periods.map((_, n) => n).filter((n) => n % every === 0 && scale.x(n) + LABEL / 2 < scale.width)
    .map((n) => svg("text", { class: "tick", x: scale.x(n), y: HEIGHT - 6, "text-anchor": "middle" }, what.times.label(n)));
  return [...lines, ...labels];
}

function timesOf(stats, period) {
  const at = (n) => new Date(stats.periods[n].at);
  const clock = { hour: "2-digit", minute: "2-digit" };
  const day = { day: "numeric", month: "short" };
  const short = new Intl.DateTimeFormat(undefined, period === "hour" || period === "day" ? clock : day);
  const long = new Intl.DateTimeFormat(undefined, { ...day, ...clock });
  return {
    label: (n) => short.format(at(n)),
    span: (n) => long.formatRange(at(n), new Date(at(n).valueOf() + 1000 * stats.step)),
  };
}

// -- drawing

function bars(what, scale) {
  const gap = scale.pitch > 6 ? 2 : 0.5;
  return what.periods.flatMap((each, n) => {
    let y = scale.y(0);
    return what.names.filter((name) => each[name]).map((name) => {
      const height = Math.max(scale.y(0) - scale.y(each[name]), LEAST);
      y -= height;
      return svg("rect", { class: `fill ${name}`, x: scale.x(n) + gap / 2, y, width: Math.max(scale.pitch - gap, 0.5), height });
    });
  });
}

// A period without data leaves a gap in the line; a lone value becomes a dot.
function curves(what, scale) {
  return what.names.toReversed().flatMap((name) => {
    const parts = [];
    let run = [];
    what.periods.forEach((each, n) => {
      const value = what.value(each, name);
      if (value !== null) {
        if (run.length === 0) parts.push(run);
        run.push([scale.x(n) + scale.pitch / 2, scale.y(value)]);
      } else {
        run = [];
      }
    });
    return parts.flatMap((points) => [
      svg("polyline", { class: `line ${name}`, points: points.map((point) => point.join(",")).join(" ") }),
      ...points.map(([cx, cy]) => svg("circle", { class: `fill ${name}`, cx, cy, r: points.length === 1 ? 3 : 1.5 })),
    ]);
  });
}
