// Makes elements. What strangers wrote becomes text and nothing else: nothing here parses HTML.

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|\p{Cs}/gu;
const LONGEST = 120;

// Strangers' text: what would not be seen, or turns the line around, is shown as an escape; too much of it is cut.
export function shown(value, longest = LONGEST) {
  if (value === null || value === undefined) return "–";
  const text = String(value);
  const cut = text.length > longest ? text.slice(0, longest) + "…" : text;
  return cut.replace(HIDDEN, (sign) => "\\u{" + sign.codePointAt(0).toString(16) + "}");
}

// el("a", {href: "#/", class: "x", onclick: f}, "text", child)
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

export function time(ms) {
  if (!ms) return el("span", { class: "none" }, "–");
  const date = new Date(ms);
  const today = new Date().toDateString() === date.toDateString();
  const text = today ? date.toLocaleTimeString() : date.toLocaleString();
  return el("time", { datetime: date.toISOString(), title: date.toISOString() }, text);
}

export function ago(ms, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export const count = (number) => Number(number).toLocaleString("en");

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let rest = number;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit ? rest.toFixed(1) : rest} ${units[unit]}`;
}

export const addressLink = (address, text = address) =>
  address && !String(address).startsWith("/")
    ? el("a", { href: "#/address?" + new URLSearchParams({ ip: address }) }, shown(text))
    : el("span", {}, shown(address));
