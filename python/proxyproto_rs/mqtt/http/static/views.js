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
  const lists = el("div");
  view.element.append(lists);

  async function draw() {
    const found = await get("/api/blocklists");
    lists.replaceChildren(...(found.length ? [el("h2", {}, "Lists that others keep"),
      plain("Lists that others keep", ["List", "Kind", "Networks", "Read", "Refused", "Trouble"], found.map((list) => [
        shown(list.name), list.kind, count(list.networks), list.readAt ? `${ago(0, list.ageSeconds * 1000)} ago` : "never",
        count(list.hits), shown(list.error, 400)]))] : []));
  }

  return { ...view, start: () => Promise.all([view.start(), draw()]), refresh: () => Promise.all([view.refresh(), draw()]) };
};

// A table that is neither filtered nor sorted: rows of cells, each a text or an element.
function plain(label, heads, rows, classOf = () => null) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((cells, row) => el("tr", { class: classOf(row) }, cells.map((cell, column) => el("td", { "data-label": heads[column] }, cell)))))));
}

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
    servers.replaceChildren(...(found.upstreams.length ? [el("h2", {}, "Servers behind"),
      plain("Servers behind", ["Server", "Address", "State", "Clients", "Logins", "Seconds for a login", "Failures"], found.upstreams.map((one) => [
        one.server, one.address, el("span", { class: one.isUp ? "up" : "down" }, one.isUp ? "up" : "down"), count(one.connections),
        count(one.answered), one.answered ? (one.connectSeconds / one.answered).toFixed(3) : "–", count(one.failures)]))] : []));
  }

  return { element: el("section", {}, el("h1", {}, "Listeners and servers"), ports, servers), start: refresh, refresh, every: SLOW };
}

// Texts of ours write code between backticks.
const marked = (text) => text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
const hostOf = (endpoint) => /^\[(.*)\]:\d+$/.exec(endpoint)?.[1] ?? endpoint.replace(/:\d+$/, "");

export function nodes() {
  const list = el("div");
  async function refresh() {
    const found = await get("/api/nodes");
    list.replaceChildren(plain("Nodes", ["Node", "Connected clients", "Last sign of life"], found.map((node) => [
      shown(node.nodeId) + (node.isThis ? " (this one)" : ""), count(node.sessions), time(node.lastSeen)])));
  }
  return {
    element: el("section", {}, el("h1", {}, "Nodes"), el("p", { class: "hint" }, "The brokers that share this one's store."), list),
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
    return plain(options.title, columns.map((column) => column.label), rows.map((row) => columns.map((column) => column.cell(row))),
      (row) => options.rowClass(rows[row]));
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
      ...(found.blocklist ? [el("p", { class: "notice" }, `The list ${shown(found.blocklist)} keeps it out.`)] : []),
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
