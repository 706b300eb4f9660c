// The page: who may see it, which view is open, and when it asks again.

import { get, Refused, token } from "./api.js";
import { el, shown } from "./dom.js";
import { here, link } from "./place.js";
import * as views from "./views.js";

const NAMES = { overview: "Overview", sessions: "Sessions", refused: "Refused", blocked: "Blocked", listeners: "Listeners", nodes: "Nodes" };

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const state = document.getElementById("state");
const leave = document.getElementById("leave");

let view = null;
let timer = 0;
let turn = 0;
const can = { write: false };

function login(message = "") {
  clearTimeout(timer);
  view = null;
  turn += 1;
  nav.hidden = leave.hidden = true;
  state.textContent = "";
  const input = el("input", { type: "password", name: "token", required: true, autocomplete: "current-password" });
  main.replaceChildren(el("form", { class: "login", onsubmit: (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    enter();
  } },
  el("h1", {}, "Token"),
  el("p", {}, "The broker's configuration names it (http.token), or the file http-token beside the store holds it. This tab forgets it when you close it."),
  el("label", {}, "Token", input),
  el("button", { type: "submit" }, "Go on"),
  el("p", { role: "alert", class: "alert" }, message)));
  input.focus();
}

async function enter() {
  if (!token.get()) return login();
  try {
    const now = await get("/api/overview");
    can.write = now.access === "write";
    document.getElementById("node").textContent = shown(now.nodeId, 60);
    document.title = `${shown(now.nodeId, 40)} – proxyproto_rs broker`;
  } catch (wrong) {
    if (wrong.status === 401) token.forget();
    return login(wrong.message);
  }
  nav.hidden = leave.hidden = false;
  return open();
}

async function open() {
  if (!token.get()) return;
  clearTimeout(timer);
  const mine = (turn += 1);
  const { view: name } = here();
  const make = views[name] ?? views.overview;
  nav.replaceChildren(...Object.entries(NAMES).map(([key, text]) =>
    el("a", { href: link(key), "aria-current": key === name ? "page" : null }, text)));
  const opened = make(can);
  const focused = document.activeElement?.getAttribute?.("name");
  try {
    const started = opened.start();
    // A table keeps its place until the new one has rows, so that nothing jumps.
    await started;
    if (mine !== turn) return;
    fine();
  } catch (wrong) {
    if (mine !== turn) return;
    trouble(wrong);
    if (wrong.status === 401) return;
  }
  main.replaceChildren(opened.element);
  if (focused) main.querySelector(`.filters [name="${CSS.escape(focused)}"]`)?.focus();
  view = opened;
  again(mine);
}

function again(mine) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (mine !== turn) return;
    if (!document.hidden && view) {
      try {
        await view.refresh();
        fine();
      } catch (wrong) {
        trouble(wrong);
        if (wrong.status === 401) return;
      }
    }
    if (mine === turn && !document.hidden) again(mine);
  }, view?.every ?? 5000);
}

function fine() {
  const text = can.write ? "" : "read only";
  if (state.textContent !== text) state.textContent = text;
  state.classList.remove("bad");
}

function trouble(wrong) {
  if (!(wrong instanceof Refused)) throw wrong;
  if (wrong.status === 401) {
    token.forget();
    login(wrong.message);
    return;
  }
  state.textContent = wrong.message;
  state.classList.add("bad");
}

addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && view) again(turn);
});
leave.addEventListener("click", () => {
  token.forget();
  login();
});
enter();
