// The views. Each returns its element and how to bring it up to date.

import { get, remove } from "./api.js";
import { block, unblock } from "./block.js";
import { chart } from "./chart.js";
import { confirm } from "./dialog.js";
import { addressLink, ago, bytes, count, el, shown, time } from "./dom.js";
import { here, link } from "./place.js";
import * as tables from "./tables.js";
import "./table.js";

const FAST = 2000;
const SLOW = 5000;

function tableView(options, more = []) {
  const table = el("data-table");
  return {
    element: el("section", {}, el("div", { class: "title" }, el("h1", {}, options.title), more), table),
    start: () => table.start(options),
    refresh: () => table.refresh(),
    every: SLOW,
  };
}

export const sessions = (can) => tableView(tables.sessions(can));
export const refused = (can) => tableView(tables.refused(can));
export const blocked = (can) => {
  const again = () => view.refresh();
  const add = can.write ? [el("button", { type: "button", class: "danger", onclick: () => block("IP_ADDRESS", "", again) }, "Block …")] : [];
  const view = tableView(tables.blocks(can), add);
  return view;
};

export function overview() {
  const cards = el("dl", { class: "cards" });
  const curves = el("div", { class: "curves" });
  const busiest = el("div", { class: "tops" });
  const trouble = el("div");
  let drawnAt = 0;

  const card = (name, value, href, hint) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, href ? el("a", { href }, value) : value, hint ? el("small", {}, hint) : null));

  async function refresh() {
    const now = await get("/api/overview");
    trouble.replaceChildren(...now.notReady.map((one) => el("p", { class: "notice" }, one)));
    const dropped = Object.values(now.dropped).reduce((sum, number) => sum + number, 0);
    cards.replaceChildren(
      card("Connected", count(now.connected), link("sessions", { state: "CONNECTED" })),
      card("Sessions", count(now.sessions), link("sessions")),
      card("Let in", count(now.accepted), null, `in ${ago(now.startedAt, now.now)}`),
      card("Refused", count(now.refused), link("refused"), `in ${ago(now.startedAt, now.now)}`),
      card("Blocks in force", count(now.activeBlocks), link("blocked", { status: "ACTIVE" })),
      card("In", bytes(now.bytesIn)),
      card("Out", bytes(now.bytesOut)),
      card("Lost lines", count(dropped), null, "rows, audit lines, events"),
    );
    if (Date.now() - drawnAt > 15000) {
      drawnAt = Date.now();
      await draw();
    }
  }

  async function draw() {
    const minutes = await get("/api/history");
    const series = (value) => new Map(minutes.map((minute) => [Math.floor(minute.ts / 60000), value(minute)]));
    const totals = new Map();
    for (const minute of minutes) {
      for (const [reason, number] of Object.entries(minute.refused)) totals.set(reason, (totals.get(reason) ?? 0) + number);
    }
    const reasons = [...totals].sort((a, b) => b[1] - a[1]).slice(0, 5).map(([reason]) => reason);
    curves.replaceChildren(
      chart("Let in", [{ name: "Let in", values: series((minute) => minute.accepted) }]),
      chart("Refused", reasons.length
        ? reasons.map((reason) => ({ name: reason, values: series((minute) => minute.refused[reason] ?? 0) }))
        : [{ name: "Refused", values: new Map() }]),
      chart("Connected", [{ name: "Connected", values: series((minute) => minute.sessions), kind: "level" }]),
      chart("Bytes", [{ name: "Bytes", values: series((minute) => minute.bytes) }], bytes),
    );
    const kinds = [["connects", "Most logins"], ["refused", "Most refusals"], ["sessions", "Most sessions"], ["bytes", "Most bytes"]];
    busiest.replaceChildren(...await Promise.all(kinds.map(async ([by, title]) => {
      const [single, wide] = await Promise.all([get("/api/top", { by, limit: 5 }), get("/api/top", { by, limit: 3, prefix: 24 })]);
      const format = by === "bytes" ? bytes : (number) => count(Math.round(number));
      const line = (entry) => el("li", {},
        entry.address.includes("/") ? el("a", { href: link(by === "refused" ? "refused" : "sessions", { ip: entry.address }) }, entry.address) : addressLink(entry.address),
        el("span", {}, format(Math.round(entry.count))));
      return el("section", {}, el("h2", {}, title),
        single.length ? el("ol", {}, single.map(line)) : el("p", { class: "none" }, "nobody yet"),
        wide.length ? el("ol", { class: "networks", "aria-label": `${title}, networks` }, wide.map(line)) : null);
    })));
  }

  return {
    element: el("section", {}, el("h1", {}, "Overview"), trouble, cards, el("h2", {}, "The last 24 hours"), curves,
      el("h2", {}, "Busiest addresses and networks"), el("p", { class: "hint" }, "Counts halve every hour."), busiest),
    start: refresh, refresh, every: FAST,
  };
}

export function listeners() {
  const ports = el("div");
  const servers = el("div");
  let drawn = "";

  const refusal = (one) => el("li", {},
    el("p", {}, time(one.time), " ", el("strong", {}, one.reason), one.count > 1 ? ` ${count(one.count)} times` : "", " from ",
      addressLink(hostOf(one.client ?? one.peer), one.client ?? one.peer), one.client ? ` (by ${one.peer})` : ""),
    el("p", { class: "detail" }, shown(one.detail, 600)),
    el("p", { class: "remedy" }, el("strong", {}, "What to do: "), marked(one.remedy)),
    one.firstBytes && !one.detail.includes(one.firstBytes) ? el("p", {}, "First bytes: ", el("code", {}, one.firstBytes), ` (${one.looksLike})`) : null);

  async function refresh() {
    const found = await get("/api/listeners");
    const now = JSON.stringify(found);
    if (now === drawn) return;
    drawn = now;
    ports.replaceChildren(...found.listeners.map((port) => el("article", { class: "port" },
      el("h2", {}, `${port.name} `, el("code", {}, port.address)),
      el("dl", { class: "facts" },
        fact("Type", port.type), fact("PROXY protocol", port.proxyProtocol),
        fact("Trusted", port.proxyProtocol === "off" ? "nobody: no header is read" : port.trusted ? port.trusted.join(", ") || "nobody" : "every peer"),
        fact("Accepted", count(port.accepted)), fact("Refused", count(port.refused)), fact("Open", count(port.open)), fact("Waiting for a header", count(port.pending))),
      el("ul", { class: "outcomes" }, Object.entries(port.outcomes).filter(([, number]) => number).map(([name, number]) =>
        el("li", {}, `${name} `, el("strong", {}, count(number))))),
      el("h3", {}, "Last refusals"),
      port.lastRefusals.length ? el("ol", { class: "refusals" }, port.lastRefusals.map(refusal)) : el("p", { class: "none" }, "none"))));
    servers.replaceChildren(...(found.upstreams.length ? [el("h2", {}, "Servers behind"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Servers behind" },
      el("table", {}, el("thead", {}, el("tr", {}, ["Server", "Address", "State", "Clients", "Logins", "Seconds for a login", "Failures"].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, found.upstreams.map((one) => el("tr", {}, el("td", {}, one.server), el("td", {}, one.address), el("td", { class: one.isUp ? "up" : "down" }, one.isUp ? "up" : "down"),
          el("td", {}, count(one.connections)), el("td", {}, count(one.answered)), el("td", {}, one.answered ? (one.connectSeconds / one.answered).toFixed(3) : "–"), el("td", {}, count(one.failures)))))))] : []));
  }

  return { element: el("section", {}, el("h1", {}, "Listeners and servers"), ports, servers), start: refresh, refresh, every: SLOW };
}

// Texts of ours write code between backticks.
const marked = (text) => text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
const hostOf = (endpoint) => /^\[(.*)\]:\d+$/.exec(endpoint)?.[1] ?? endpoint.replace(/:\d+$/, "");

export function nodes() {
  const list = el("tbody");
  async function refresh() {
    const found = await get("/api/nodes");
    list.replaceChildren(...found.map((node) => el("tr", {}, el("td", {}, shown(node.nodeId), node.isThis ? " (this one)" : ""),
      el("td", {}, count(node.sessions)), el("td", {}, time(node.lastSeen)))));
  }
  return {
    element: el("section", {}, el("h1", {}, "Nodes"), el("p", { class: "hint" }, "The brokers that share this one's store."),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Nodes" },
        el("table", {}, el("thead", {}, el("tr", {}, ["Node", "Connected clients", "Last sign of life"].map((name) => el("th", { scope: "col" }, name)))), list))),
    start: refresh, refresh, every: SLOW,
  };
}

export function address(can) {
  const { ip = "" } = here().query;
  const content = el("div");
  const buttons = el("p", { class: "buttons" });
  let drawn = "";

  function small(options, rows) {
    const columns = options.columns.filter((column) => !column.hidden);
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.title },
      el("table", {}, el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column.label)))),
        el("tbody", {}, rows.map((row) => el("tr", { class: options.rowClass(row) }, columns.map((column) => el("td", { "data-label": column.label }, column.cell(row))))))));
  }

  async function refresh() {
    const found = await get("/api/address", { ipAddress: ip });
    const now = JSON.stringify(found);
    if (now === drawn) return;
    drawn = now;
    const connected = found.sessions.data.filter((row) => row.connectionState === "CONNECTED");
    const active = found.blocks.filter((one) => one.status === "ACTIVE");
    if (can.write) {
      buttons.replaceChildren(
        active.length ? el("button", { type: "button", onclick: () => unblock(active, refresh) }, "Unblock") : el("button", { type: "button", class: "danger", onclick: () => block("IP_ADDRESS", ip, refresh) }, "Block this address …"),
        connected.length ? el("button", { type: "button", class: "danger", onclick: () => confirm(`Disconnect all clients of ${ip}?`, "Disconnect", async () => {
          await remove("/api/v2/client-session/disconnect", { clientIpAddress: `${ip}/${ip.includes(":") ? 128 : 32}` });
          await refresh();
        }) }, "Disconnect its clients …") : "");
    }
    const part = (title, total, made) => [el("h2", {}, `${title} (${count(total)})`), total ? made() : el("p", { class: "none" }, "none")];
    content.replaceChildren(
      ...part("Sessions", found.sessions.totalElements, () => small(tables.sessions(can, {}, true), found.sessions.data)),
      ...part("Refusals", found.refused.totalElements, () => small(tables.refused(can, {}, true), found.refused.data)),
      ...part("Blocks that cover it", found.blocks.length, () => small(tables.blocks(can), found.blocks)),
      ...part("What happened", found.events.length, () => el("ol", { class: "events" }, found.events.map((event) => el("li", {},
        el("time", { datetime: event.ts }, new Date(event.ts).toLocaleTimeString()), " ", el("strong", {}, event.event),
        event.clientId ? [" ", el("span", { dir: "auto" }, shown(event.clientId, 60))] : null, event.reason ? ` ${event.reason}` : "", event.by ? ` by ${event.by}` : "")))),
      el("p", {}, "Its network: ", el("a", { href: link("sessions", { ip: found.network }) }, `sessions of ${found.network}`), ", ",
        el("a", { href: link("refused", { ip: found.network }) }, `refusals of ${found.network}`)));
  }

  return { element: el("section", {}, el("h1", {}, shown(ip)), buttons, content), start: refresh, refresh, every: SLOW };
}
