// Curves of 24 hours as SVG. A screen reader gets the newest and the largest value of each.

import { count, el, svg } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 120;
const MINUTES = 1440;

// lines: [{name, values: Map(minute -> number), kind}]
export function chart(title, lines, format = count) {
  const now = Math.floor(Date.now() / 60000);
  const first = now - MINUTES + 1;
  const most = Math.max(1, ...lines.flatMap((line) => [...line.values.values()]));
  const drawn = lines.map((line, index) => {
    let path = "";
    let before = null;
    for (let minute = first; minute <= now; minute += 1) {
      const value = line.values.get(minute) ?? (line.kind === "level" ? before : 0) ?? 0;
      before = value;
      const x = ((minute - first) / (MINUTES - 1)) * WIDTH;
      const y = HEIGHT - (value / most) * (HEIGHT - 4);
      path += `${path ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    }
    return svg("path", { d: path, class: `line line-${index % 6}` });
  });
  const words = lines.map((line) => {
    const values = [...line.values.values()];
    return `${line.name}: now ${format(line.values.get(now) ?? (line.kind === "level" ? values.at(-1) ?? 0 : 0))}, at most ${format(Math.max(0, ...values))}`;
  });
  const hours = [];
  for (let hour = 0; hour <= 24; hour += 6) {
    const x = (hour / 24) * WIDTH;
    hours.push(svg("line", { x1: x, x2: x, y1: 0, y2: HEIGHT, class: "grid" }));
  }
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}, last 24 hours. ${words.join(". ")}` },
    ...hours,
    ...drawn,
  );
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("strong", {}, title), el("span", { class: "most" }, `scale up to ${format(most)}${lines[0]?.kind === "level" ? "" : " a minute"}`)),
    picture,
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, "24 h ago"), el("span", {}, "12 h ago"), el("span", {}, "now")),
    lines.length > 1 || lines[0]?.name !== title
      ? el("ul", { class: "legend" }, lines.map((line, index) => el("li", { class: `key-${index % 6}` }, line.name)))
      : null,
  );
}
