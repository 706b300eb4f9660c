// Dialogs, and the short messages after an action.

import { el } from "./dom.js";

export function dialog(title, ...content) {
  const id = `title-${Math.random().toString(36).slice(2)}`;
  const box = el("dialog", { "aria-labelledby": id }, el("h2", { id }, title), ...content);
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

export function confirm(question, label, act) {
  const trouble = el("p", { role: "alert" });
  const box = dialog(
    question,
    el("form", { method: "dialog", onsubmit: async (event) => {
      event.preventDefault();
      try {
        await act();
        box.close();
      } catch (wrong) {
        trouble.replaceChildren(wrong.message);
      }
    } },
    trouble,
    el("p", { class: "buttons" }, el("button", { type: "submit", class: "danger" }, label), el("button", { type: "button", onclick: () => box.close() }, "Cancel"))),
  );
}

let speaking = null;

export function say(text) {
  speaking?.remove();
  const message = el("p", { class: "toast", role: "status" }, text);
  speaking = message;
  document.body.append(message);
  setTimeout(() => message.remove(), 6000);
}
