// Asks the API. The token lives in sessionStorage: it ends with the tab.

const KEY = "proxyproto-rs-token";
const kept = new Map(); // path -> {tag, value}, so that what has not changed is not sent again
const KEPT = 50;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => {
    sessionStorage.removeItem(KEY);
    kept.clear();
  },
};

async function send(method, path, headers = {}, body = undefined) {
  let response;
  try {
    response = await fetch(path, { method, body, headers: { ...headers, "X-Authorization": `Bearer ${token.get()}` } });
  } catch {
    throw new Refused(0, "the broker does not answer");
  }
  return response;
}

async function refused(response) {
  let message = response.statusText || `status ${response.status}`;
  try {
    message = (await response.json()).message ?? message;
  } catch {
    // It is no JSON: something in between has answered.
  }
  return new Refused(response.status, message);
}

export const withQuery = (path, query = {}) => {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) parameters.set(name, value);
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
};

export async function get(path, query = {}) {
  const whole = withQuery(path, query);
  const known = kept.get(whole);
  const response = await send("GET", whole, known ? { "If-None-Match": known.tag } : {});
  if (response.status === 304 && known) return known.value;
  if (!response.ok) throw await refused(response);
  const value = await response.json();
  const tag = response.headers.get("ETag");
  if (tag) {
    kept.delete(whole);
    kept.set(whole, { tag, value });
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return value;
}

export async function remove(path, query) {
  const response = await send("DELETE", withQuery(path, query));
  if (!response.ok) throw await refused(response);
  return response.json();
}

export async function post(path, body) {
  const response = await send("POST", path, { "Content-Type": "application/json" }, JSON.stringify(body));
  if (!response.ok) throw await refused(response);
  return response.json();
}
