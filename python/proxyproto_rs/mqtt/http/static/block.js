// Blocks an address, a network, a client id or a user: first it shows whom that would cover.

import { get, post, remove, withQuery } from "./api.js";
import { count, el, shown } from "./dom.js";
import { dialog, say } from "./dialog.js";

const EXPIRIES = [["1 hour", 3600], ["1 day", 86400], ["7 days", 604800], ["for ever", 0]];
const KEYS = { IP_ADDRESS: "ipAddress", CLIENT_ID: "clientId", USERNAME: "username", REGEX: "pattern" };
const NAMES = { IP_ADDRESS: "Address or network", CLIENT_ID: "Client id", USERNAME: "User", REGEX: "Pattern (RE2, the whole value)" };
const TARGETS = { BY_CLIENT_ID: "Client id", BY_USERNAME: "User", BY_IP_ADDRESS: "Address" };

// 203.0.113.7 -> 203.0.113.0/24; 2001:db8::1 -> its /64
export function network(address) {
  if (address.includes("/")) return null;
  if (!address.includes(":")) {
    const parts = address.split(".");
    return parts.length === 4 ? `${parts.slice(0, 3).join(".")}.0/24` : null;
  }
  const [head, tail = null] = address.split("::");
  const left = head ? head.split(":") : [];
  const right = tail ? tail.split(":") : [];
  const groups = tail === null ? left : [...left, ...Array(Math.max(0, 8 - left.length - right.length)).fill("0"), ...right];
  return groups.length === 8 ? `${groups.slice(0, 4).join(":")}::/64` : null;
}

// For how long and why, and whom that would cover.
function terms() {
  return {
    until: el("select", { name: "until" }, EXPIRIES.map(([name, seconds]) => el("option", { value: seconds }, name))),
    why: el("input", { name: "description", maxlength: 255, autocomplete: "off" }),
    covered: el("p", { class: "preview", role: "status" }),
  };
}

function agreed(until, why) {
  const seconds = Number(until.value);
  return { description: why.value.trim() || null, expirationTime: seconds ? Date.now() + seconds * 1000 : 0 };
}

function wouldEnd(seen) {
  const names = seen.examples.map((name) => shown(name, 40)).join(", ");
  return [
    el("strong", {}, `${plural(seen.sessions, "session")}, ${plural(seen.users, "user")}`),
    seen.sessions ? ` would end: ${names}${seen.sessions > seen.examples.length ? ", …" : ""}` : " would end now.",
  ];
}

// Blocks the addresses of all rows that match the filters.
export function blockMatching(path, filters, done) {
  const { until, why, covered } = terms();
  const button = el("button", { type: "submit", class: "danger", disabled: true }, "Block");
  const form = el(
    "form",
    { method: "dialog", onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        const made = await post(withQuery(path, filters), agreed(until, why));
        box.close();
        say(`${plural(made.count, "address", "es")} blocked.`);
        done();
      } catch (wrong) {
        button.disabled = false;
        covered.replaceChildren(wrong.message);
      }
    } },
    el("label", {}, "For", until), el("label", {}, "Why", why), covered,
    el("p", { class: "buttons" }, button, el("button", { type: "button", onclick: () => box.close() }, "Cancel")),
  );
  const box = dialog("Block the addresses of all that match", form);
  get(`${path}/preview`, filters).then((seen) => {
    button.disabled = !seen.addresses;
    covered.replaceChildren(
      `${plural(seen.addresses, "address", "es")}${seen.more ? " (more match than one request takes)" : ""}: `, ...wouldEnd(seen));
  }, (wrong) => covered.replaceChildren(wrong.message));
}

export function block(type = "IP_ADDRESS", value = "", done = () => {}) {
  const kind = el("select", { name: "type" }, Object.entries(NAMES).map(([key, name]) => el("option", { value: key, selected: key === type }, name)));
  const what = el("input", { name: "value", value, required: true, autocomplete: "off" });
  const target = el("select", { name: "target" }, Object.entries(TARGETS).map(([key, name]) => el("option", { value: key }, name)));
  const targetField = el("label", {}, "Matches the", target);
  const { until, why, covered } = terms();
  const wider = el("p", { class: "wider" });
  const button = el("button", { type: "submit", class: "danger" }, "Block");
  let asked = 0;

  async function look() {
    targetField.hidden = kind.value !== "REGEX";
    const around = kind.value === "IP_ADDRESS" ? network(what.value.trim()) : null;
    wider.replaceChildren(...(around ? [el("button", { type: "button", onclick: () => { what.value = around; look(); } }, `Block all of ${around}`)] : []));
    const turn = (asked += 1);
    button.disabled = true;
    if (!what.value.trim()) return covered.replaceChildren("Name what to block.");
    try {
      const seen = await get("/api/blockedClient/preview", {
        type: kind.value, value: what.value.trim(), regexMatchTarget: kind.value === "REGEX" ? target.value : "",
      });
      if (turn !== asked) return undefined;
      button.disabled = Boolean(seen.refusedBecause);
      if (seen.refusedBecause) return covered.replaceChildren(`This is not allowed: ${seen.refusedBecause}`);
      return covered.replaceChildren(...wouldEnd(seen));
    } catch (wrong) {
      if (turn === asked) covered.replaceChildren(wrong.message);
      return undefined;
    }
  }

  const form = el(
    "form",
    { method: "dialog", onsubmit: async (event) => {
      event.preventDefault();
      const body = { type: kind.value, [KEYS[kind.value]]: what.value.trim(), ...agreed(until, why) };
      if (kind.value === "REGEX") body.regexMatchTarget = target.value;
      try {
        await post("/api/blockedClient", body);
        box.close();
        say(`${what.value.trim()} is blocked.`);
        done();
      } catch (wrong) {
        covered.replaceChildren(wrong.message);
      }
    } },
    el("label", {}, "Kind", kind), el("label", {}, "Value", what), targetField, wider,
    el("label", {}, "For", until), el("label", {}, "Why", why), covered,
    el("p", { class: "buttons" }, button, el("button", { type: "button", onclick: () => box.close() }, "Cancel")),
  );
  let timer = 0;
  form.addEventListener("input", () => { clearTimeout(timer); button.disabled = true; timer = setTimeout(look, 200); });
  const box = dialog("Block", form);
  look();
  what.focus();
}

export const plural = (number, word, ending = "s") => `${count(number)} ${word}${number === 1 ? "" : ending}`;

export async function unblock(blocks, done) {
  for (const one of blocks) {
    await remove("/api/blockedClient", { type: one.type, value: one.value, regexMatchTarget: one.regexMatchTarget });
  }
  say(blocks.length === 1 ? `${shown(blocks[0].value, 60)} is no longer blocked.` : `${plural(blocks.length, "block")} removed.`);
  done();
}
