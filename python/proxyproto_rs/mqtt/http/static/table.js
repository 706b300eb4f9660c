// A table of the API: filters, sorting, pages, columns and selection. All but the selection stands in the address bar.

import { get } from "./api.js";
import { count, el, shown } from "./dom.js";
import { change, here, link } from "./place.js";

const SIZES = [25, 50, 100, 500];
const MOST = 10000; // rows of a download

export class DataTable extends HTMLElement {
  // options: {view, title, path, columns: [{name, label, cell, sort, hidden}], filters: [{name, label, choices}],
  //           fixed, key, actions: [{label, run, danger}], matching: [{label, run}], rowClass, note}
  start(options) {
    this.options = options;
    this.selected = new Map();
    this.rows = [];
    this.status = el("p", { class: "summary", role: "status" });
    this.body = el("tbody");
    this.head = el("thead");
    this.pager = el("nav", { class: "pager", "aria-label": `Pages of ${options.title}` });
    this.chosen = el("div", { class: "chosen", hidden: true });
    this.table = el("table", {}, el("caption", { class: "hidden" }, options.title), this.head, this.body);
    this.replaceChildren(
      this.filters(),
      this.status,
      this.chosen,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.title }, this.table),
      this.pager,
    );
    return this.refresh();
  }

  get columns() {
    const wanted = here().query.cols?.split(",");
    return this.options.columns.filter((column) => (wanted ? wanted.includes(column.name) : !column.hidden));
  }

  query() {
    const { query } = here();
    const asked = { ...this.options.fixed };
    for (const filter of this.options.filters) {
      const value = query[filter.name];
      if (value) asked[filter.parameter ?? filter.name] = filter.value ? filter.value(value) : value;
    }
    asked.pageSize = SIZES.includes(Number(query.size)) ? query.size : 50;
    asked.page = query.page ?? 0;
    if (query.sort) {
      asked.sortProperty = query.sort;
      asked.sortOrder = query.order === "ASC" ? "ASC" : "DESC";
    }
    return asked;
  }

  async refresh() {
    const query = this.query();
    const asked = JSON.stringify(query);
    this.asked = asked;
    const page = await get(this.options.path, query);
    if (this.asked !== asked) return; // another one was asked for meanwhile
    this.page = page;
    this.rows = page.data;
    this.draw();
  }

  draw() {
    const { page } = this;
    const number = Number(this.query().page);
    const first = number * Number(this.query().pageSize);
    const text = page.totalElements
      ? `${count(first + 1)}–${count(first + page.data.length)} of ${count(page.totalElements)}`
      : "Nothing found";
    if (this.status.textContent !== text) this.status.textContent = text;
    this.drawHead();
    const drawn = JSON.stringify([this.rows, this.columns.map((column) => column.name)]);
    if (this.drawn !== drawn) {
      // Rows are only made anew if they differ, so that nobody loses the focus every five seconds.
      this.drawn = drawn;
      const focused = document.activeElement?.closest?.("tr")?.dataset.key;
      this.body.replaceChildren(...this.rows.map((row) => this.row(row)));
      if (focused !== undefined && !this.contains(document.activeElement)) {
        [...this.body.rows].find((row) => row.dataset.key === focused)?.querySelector("a,button,input")?.focus();
      }
    }
    this.drawPager(number);
    this.drawChosen();
  }

  drawHead() {
    const { query } = here();
    const sorted = query.sort ?? this.options.sort;
    const order = query.order === "ASC" ? "ASC" : "DESC";
    const key = JSON.stringify([sorted, order, this.columns.map((column) => column.name), this.canSelect]);
    if (this.drawnHead === key) return;
    this.drawnHead = key;
    const cells = this.columns.map((column) => {
      if (!column.sort) return el("th", { scope: "col" }, column.label);
      const mine = sorted === column.sort;
      const next = mine && order === "DESC" ? "ASC" : "DESC";
      return el(
        "th",
        { scope: "col", "aria-sort": mine ? (order === "ASC" ? "ascending" : "descending") : null },
        el("button", { type: "button", class: "sort", onclick: () => change({ sort: column.sort, order: next, page: "" }) },
          column.label, el("span", { "aria-hidden": "true" }, mine ? (order === "ASC" ? " ▲" : " ▼") : "")),
      );
    });
    const all = this.canSelect
      ? [el("th", { scope: "col", class: "tick" }, el("input", { type: "checkbox", "aria-label": "Select all rows of this page", onchange: (event) => this.selectAll(event.target.checked) }))]
      : [];
    this.head.replaceChildren(el("tr", {}, all, cells));
  }

  get canSelect() {
    return Boolean(this.options.actions?.length);
  }

  row(row) {
    const key = this.options.key(row);
    const tick = this.canSelect
      ? [el("td", { class: "tick" }, el("input", {
          type: "checkbox", checked: this.selected.has(key), "aria-label": `Select ${shown(this.options.name(row), 60)}`,
          onchange: (event) => this.select(key, row, event.target.checked),
        }))]
      : [];
    const cells = this.columns.map((column) => el("td", { "data-label": column.label }, column.cell(row)));
    return el("tr", { class: this.options.rowClass?.(row) ?? null, "data-key": key }, tick, cells);
  }

  select(key, row, wanted) {
    if (wanted) this.selected.set(key, row);
    else this.selected.delete(key);
    this.drawChosen();
  }

  selectAll(wanted) {
    for (const row of this.rows) {
      if (wanted) this.selected.set(this.options.key(row), row);
      else this.selected.delete(this.options.key(row));
    }
    for (const box of this.body.querySelectorAll(".tick input")) box.checked = wanted;
    this.drawChosen();
  }

  unselect() {
    this.selected.clear();
    this.drawn = null;
    for (const box of this.querySelectorAll(".tick input")) box.checked = false;
    this.drawChosen();
  }

  drawChosen() {
    const rows = [...this.selected.values()];
    this.chosen.hidden = !rows.length;
    if (!rows.length) return;
    this.chosen.replaceChildren(
      el("span", {}, `${count(rows.length)} selected`),
      ...this.options.actions.map((action) =>
        el("button", { type: "button", class: action.danger ? "danger" : "", onclick: () => action.run(rows, this) }, action.label)),
      ...this.matching(rows.length),
      el("button", { type: "button", onclick: () => this.unselect() }, "Select none"),
    );
  }

  // What is filtered may be more than one page shows. Without a filter this would be everybody.
  matching(selected) {
    const { matching = [] } = this.options;
    const total = this.page.totalElements;
    const { pageSize, page, sortProperty, sortOrder, ...filters } = this.query();
    if (total <= selected || !Object.keys(filters).length) return [];
    return matching.map((action) =>
      el("button", { type: "button", class: "danger", onclick: () => action.run(filters, total, this) }, `${action.label} ${count(total)} that match`));
  }

  drawPager(number) {
    const { page } = this;
    const size = this.query().pageSize;
    const key = JSON.stringify([number, page.totalPages, size, location.hash]);
    if (this.drawnPager === key) return;
    this.drawnPager = key;
    const { view, query } = here();
    const to = (target, text) =>
      el("a", { href: link(view, { ...query, page: target || "" }), class: "button" }, text);
    this.pager.replaceChildren(
      number > 0 ? to(number - 1, "‹ Newer page") : el("span", { class: "button off" }, "‹ Newer page"),
      el("span", {}, `Page ${count(number + 1)} of ${count(Math.max(1, page.totalPages))}`),
      page.hasNext ? to(number + 1, "Next page ›") : el("span", { class: "button off" }, "Next page ›"),
      el("label", {}, "Rows ", el("select", { onchange: (event) => change({ size: event.target.value, page: "" }) },
        SIZES.map((choice) => el("option", { value: choice, selected: String(choice) === String(size) }, String(choice))))),
      el("button", { type: "button", onclick: () => this.download("csv") }, "CSV"),
      el("button", { type: "button", onclick: () => this.download("json") }, "JSON"),
    );
  }

  filters() {
    const { query } = here();
    const fields = this.options.filters.map((filter) => {
      const value = query[filter.name] ?? "";
      const input = filter.choices
        ? el("select", { name: filter.name }, el("option", { value: "" }, "any"), filter.choices.map((choice) => el("option", { value: choice, selected: choice === value }, choice)))
        : el("input", { name: filter.name, value, placeholder: filter.hint ?? "", type: filter.type ?? "search", autocomplete: "off" });
      return el("label", {}, filter.label, input);
    });
    const form = el("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); this.apply(form); } },
      fields, el("button", { type: "submit" }, "Filter"),
      el("button", { type: "button", onclick: () => { location.hash = link(here().view); } }, "Clear"),
      this.chooser());
    form.addEventListener("change", () => this.apply(form));
    return form;
  }

  chooser() {
    const boxes = this.options.columns.map((column) =>
      el("label", { class: "inline" }, el("input", { type: "checkbox", value: column.name, checked: this.columns.includes(column),
        onchange: (event) => { event.stopPropagation(); this.choose(); } }), column.label));
    this.boxes = el("details", { class: "columns" }, el("summary", {}, "Columns"), el("div", {}, boxes));
    return this.boxes;
  }

  choose() {
    const names = [...this.boxes.querySelectorAll("input:checked")].map((box) => box.value);
    change({ cols: names.length ? names.join(",") : "" });
  }

  apply(form) {
    const values = {};
    for (const filter of this.options.filters) values[filter.name] = form.elements[filter.name].value.trim();
    change({ ...values, page: "" });
  }

  async download(kind) {
    const rows = [];
    const query = { ...this.query(), pageSize: 1000 };
    for (let page = 0; rows.length < MOST; page += 1) {
      const part = await get(this.options.path, { ...query, page });
      rows.push(...part.data);
      if (!part.hasNext) break;
    }
    const text = kind === "json" ? JSON.stringify(rows, null, 1) : csv(rows);
    const address = URL.createObjectURL(new Blob([text], { type: kind === "json" ? "application/json" : "text/csv" }));
    el("a", { href: address, download: `${this.options.view}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }
}

function csv(rows) {
  if (!rows.length) return "";
  const names = Object.keys(rows[0]);
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    // A spreadsheet would run a stranger's text that begins like a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

customElements.define("data-table", DataTable);
