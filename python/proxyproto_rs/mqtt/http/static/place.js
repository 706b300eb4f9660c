// The address bar holds the view and its filters, so that a link shows the same: #/sessions?clientIpAddress=192.0.2.0/24

export function here() {
  const [, view = "overview", query = ""] = /^#\/([a-z]*)(?:\?(.*))?$/.exec(location.hash) ?? [];
  return { view: view || "overview", query: Object.fromEntries(new URLSearchParams(query)) };
}

export function link(view, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) parameters.set(name, value);
  }
  const text = parameters.toString();
  return `#/${view}${text ? "?" + text : ""}`;
}

export function change(query) {
  const now = here();
  const next = link(now.view, { ...now.query, ...query });
  if (next !== location.hash) location.hash = next;
}
