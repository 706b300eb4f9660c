// The three tables: sessions, refused clients, blocks.

import { post, remove } from "./api.js";
import { block, blockMatching, plural, unblock } from "./block.js";
import { confirm, say } from "./dialog.js";
import { addressLink, bytes, count, el, shown, time } from "./dom.js";
import { link } from "./place.js";

export const REASONS = [
  "bad-credentials", "blocked", "access-denied", "cert-required", "auth-error", "protocol-version", "identifier-rejected",
  "malformed-connect", "no-connect", "closed-early", "packet-too-large", "upstream-unavailable", "upstream-refused", "broker-error",
  "tls-failed", "ws-failed", "untrusted", "missing-header", "malformed", "oversized", "bad-checksum", "timeout",
  "unexpected-header", "version-not-allowed", "tls-required", "denied",
];

const minutesAgo = { "last 10 minutes": 10, "last hour": 60, "last day": 1440, "last week": 10080 };
const since = (name) => String(Math.floor(Date.now() / 60000 - minutesAgo[name]) * 60000);
const mark = (row) => (row.isBlocked ? el("span", { class: "mark" }, "blocked") : null);
const text = (value, longest) => el("span", { dir: "auto" }, shown(value, longest));
const address = (name) => (row) => el("span", {}, addressLink(row[name]), " ", mark(row));

export function sessions(can, fixed = {}, shortened = false) {
  const names = { view: "sessions", title: "Sessions", path: "/api/v2/client-session", key: (row) => row.sessionId, name: (row) => row.clientId };
  return {
    ...names,
    fixed,
    sort: "connectedAt",
    rowClass: (row) => (row.isBlocked ? "blocked" : row.connectionState === "CONNECTED" ? "" : "away"),
    columns: [
      { name: "client", label: "Client", sort: "clientId", cell: (row) => text(row.clientId) },
      { name: "address", label: "Address", sort: "clientIpAdr", cell: address("clientIpAdr"), hidden: shortened },
      { name: "port", label: "Port", cell: (row) => row.clientPort, hidden: true },
      { name: "user", label: "User", sort: "username", cell: (row) => text(row.username) },
      { name: "listener", label: "Listener", sort: "listener", cell: (row) => row.listener },
      { name: "state", label: "State", sort: "connectionState", cell: (row) => (row.connectionState === "CONNECTED" ? "connected" : "away") },
      { name: "since", label: "Since", sort: "connectedAt", cell: (row) => time(row.connectedAt) },
      { name: "version", label: "MQTT", cell: (row) => row.mqttVersion.replace("MQTT_", "").replaceAll("_", ".") },
      { name: "in", label: "In", sort: "bytesIn", cell: (row) => bytes(row.bytesIn) },
      { name: "out", label: "Out", sort: "bytesOut", cell: (row) => bytes(row.bytesOut) },
      { name: "proxy", label: "Proxy", cell: (row) => (row.proxyIpAdr ? `${row.proxyIpAdr} v${row.proxyVersion}` : "–"), hidden: true },
      { name: "tls", label: "TLS", cell: (row) => (row.tls ? `${row.tls.version ?? "?"} at the ${row.tls.endedAt}` : "–"), hidden: true },
      { name: "server", label: "Server", cell: (row) => shown(row.upstream), hidden: true },
      { name: "node", label: "Node", sort: "nodeId", cell: (row) => shown(row.nodeId), hidden: true },
      { name: "seen", label: "Last byte", sort: "lastSeen", cell: (row) => time(row.lastSeen), hidden: true },
      { name: "topics", label: "Topics", sort: "subscriptionsCount", cell: (row) => row.subscriptionsCount, hidden: true },
      { name: "ended", label: "Ended by", cell: (row) => shown(row.disconnectReason), hidden: true },
    ],
    filters: shortened ? [] : [
      { name: "ip", parameter: "clientIpAddress", label: "Address or network", hint: "192.0.2.0/24" },
      { name: "client", parameter: "textSearch", label: "Client" },
      { name: "user", parameter: "username", label: "User" },
      { name: "listener", parameter: "listenerList", label: "Listener" },
      { name: "state", parameter: "connectedStatusList", label: "State", choices: ["CONNECTED", "DISCONNECTED"] },
      { name: "since", parameter: "startTime", label: "Since", choices: Object.keys(minutesAgo), value: since },
    ],
    actions: can.write ? [
      { label: "Disconnect", danger: true, run: disconnect },
      { label: "Block the addresses", danger: true, run: (rows, table) => blockAll(rows, "clientIpAdr", table) },
    ] : [],
    matching: can.write ? [
      { label: "Disconnect all", run: disconnectMatching },
      { label: "Block the addresses of all", run: blockFrom("/api/v2/client-session/block") },
    ] : [],
  };
}

const blockFrom = (path) => (filters, total, table) =>
  blockMatching(path, filters, () => { table.unselect(); table.refresh(); });

function disconnectMatching(filters, total, table) {
  confirm(`Disconnect all ${plural(total, "client")} that match the filters?`, "Disconnect", async () => {
    const ended = await remove("/api/v2/client-session/disconnect", filters);
    say(`${plural(ended.count, "client")} disconnected.`);
    table.unselect();
    await table.refresh();
  });
}

function disconnect(rows, table) {
  confirm(`Disconnect ${rows.length === 1 ? shown(rows[0].clientId, 60) : plural(rows.length, "client")}?`, "Disconnect", async () => {
    let ended = 0;
    for (const row of rows) {
      try {
        ended += (await remove("/api/client-session/disconnect", { clientId: row.clientId, sessionId: row.sessionId })).count;
      } catch (wrong) {
        if (wrong.status !== 404) throw wrong; // 404: it has gone by itself
      }
    }
    say(`${plural(ended, "client")} disconnected.`);
    table.unselect();
    await table.refresh();
  });
}

export function refused(can, fixed = {}, shortened = false) {
  return {
    view: "refused", title: "Refused clients", path: "/api/unauthorized/client/v2", fixed, sort: "ts",
    key: (row) => JSON.stringify([row.clientId, row.ipAddress]), name: (row) => row.clientId || row.ipAddress,
    rowClass: (row) => (row.isBlocked ? "blocked" : ""),
    columns: [
      { name: "last", label: "Last", sort: "ts", cell: (row) => time(row.ts) },
      { name: "address", label: "Address", sort: "ipAddress", cell: address("ipAddress"), hidden: shortened },
      { name: "client", label: "Client", sort: "clientId", cell: (row) => text(row.clientId || null) },
      { name: "user", label: "User", sort: "username", cell: (row) => text(row.username) },
      { name: "code", label: "Reason", sort: "reasonCode", cell: (row) => el("a", { href: link("refused", { reason: row.reasonCode }) }, row.reasonCode) },
      { name: "attempts", label: "Attempts", sort: "attempts", cell: (row) => count(row.attempts) },
      { name: "listener", label: "Listener", sort: "listener", cell: (row) => row.listener },
      { name: "what", label: "What came", cell: (row) => text(row.reason, 400) },
      { name: "first", label: "First", sort: "firstTs", cell: (row) => time(row.firstTs), hidden: true },
      { name: "proxy", label: "Proxy", cell: (row) => shown(row.proxyAddress), hidden: true },
      { name: "password", label: "Password", cell: (row) => (row.passwordProvided ? "sent" : "none"), hidden: true },
      { name: "node", label: "Node", cell: (row) => shown(row.nodeId), hidden: true },
    ],
    filters: shortened ? [] : [
      { name: "ip", parameter: "ipAddress", label: "Address or network", hint: "192.0.2.0/24" },
      { name: "client", parameter: "clientId", label: "Client" },
      { name: "user", parameter: "username", label: "User" },
      { name: "listener", label: "Listener" },
      { name: "reason", parameter: "reasonCode", label: "Reason", choices: REASONS },
      { name: "since", parameter: "startTime", label: "Since", choices: Object.keys(minutesAgo), value: since },
    ],
    actions: can.write ? [
      { label: "Block the addresses", danger: true, run: (rows, table) => blockAll(rows, "ipAddress", table) },
      { label: "Delete the rows", danger: true, run: forget },
    ] : [],
    matching: can.write ? [{ label: "Block the addresses of all", run: blockFrom("/api/unauthorized/client/v2/block") }] : [],
  };
}

function forget(rows, table) {
  confirm(`Delete ${plural(rows.length, "row")}?`, "Delete", async () => {
    for (const row of rows) {
      try {
        await remove("/api/unauthorized/client", { clientId: row.clientId, ipAddress: row.ipAddress });
      } catch (wrong) {
        if (wrong.status !== 404) throw wrong;
      }
    }
    table.unselect();
    await table.refresh();
  });
}

// One address is blocked with the dialog; of several, each for an hour.
function blockAll(rows, name, table) {
  const addresses = [...new Set(rows.map((row) => row[name]))];
  const done = () => { table.unselect(); table.refresh(); };
  if (addresses.length === 1) {
    block("IP_ADDRESS", addresses[0], done);
    return;
  }
  confirm(`Block ${count(addresses.length)} addresses for one hour?`, "Block", async () => {
    for (const one of addresses) {
      await post("/api/blockedClient", { type: "IP_ADDRESS", ipAddress: one, expirationTime: Date.now() + 3600000 });
    }
    say(`${count(addresses.length)} addresses are blocked for one hour.`);
    done();
  });
}

export function blocks(can, fixed = {}) {
  return {
    view: "blocked", title: "Blocked clients", path: "/api/blockedClient/v2", fixed, sort: "createdAt",
    key: (row) => JSON.stringify([row.type, row.regexMatchTarget, row.value]), name: (row) => row.value,
    rowClass: (row) => (row.status === "ACTIVE" ? "" : "away"),
    columns: [
      { name: "type", label: "Kind", sort: "type", cell: (row) => row.type.toLowerCase().replace("_", " ") + (row.regexMatchTarget ? ` (${row.regexMatchTarget.toLowerCase().replaceAll("_", " ")})` : "") },
      { name: "value", label: "Value", sort: "value", cell: (row) => (row.type === "IP_ADDRESS" && !row.value.includes("/") ? addressLink(row.value) : text(row.value)) },
      { name: "status", label: "Status", cell: (row) => row.status.toLowerCase().replace("_", " ") },
      { name: "until", label: "Until", sort: "expirationTime", cell: (row) => (row.expirationTime ? time(row.expirationTime) : "for ever") },
      { name: "hits", label: "Hits", sort: "hits", cell: (row) => count(row.hits) },
      { name: "hit", label: "Last hit", sort: "lastHitAt", cell: (row) => time(row.lastHitAt) },
      { name: "by", label: "By", sort: "createdBy", cell: (row) => row.createdBy },
      { name: "made", label: "Made", sort: "createdAt", cell: (row) => time(row.createdAt) },
      { name: "why", label: "Why", cell: (row) => text(row.description, 200) },
    ],
    filters: [
      { name: "value", label: "Value" },
      { name: "text", parameter: "textSearch", label: "Value or reason" },
      { name: "type", parameter: "typeList", label: "Kind", choices: ["IP_ADDRESS", "CLIENT_ID", "USERNAME", "REGEX"] },
      { name: "status", parameter: "statusList", label: "Status", choices: ["ACTIVE", "EXPIRED", "DELETING_SOON"] },
    ],
    actions: can.write ? [{ label: "Unblock", danger: true, run: (rows, table) => unblock(rows, () => { table.unselect(); table.refresh(); }) }] : [],
    matching: can.write ? [{ label: "Unblock all", run: unblockMatching }] : [],
  };
}

function unblockMatching(filters, total, table) {
  confirm(`Remove all ${plural(total, "block")} that match the filters?`, "Unblock", async () => {
    const removed = await remove("/api/blockedClient/v2", filters);
    say(`${plural(removed.count, "block")} removed.`);
    table.unselect();
    await table.refresh();
  });
}
