// A secret is shown once; when the dialog is closed, the page has forgotten it.

import { el, openDialog } from "./dom.js";

export function reveal(secret, until) {
  return openDialog("The signing secret", (close) => {
    const shown = el("code", { class: "secret", tabindex: "0", "aria-label": "Secret" }, "•".repeat(24));
    const toggle = el("button", { type: "button", class: "main", autofocus: true, onclick: () => {
      shown.textContent = secret;
      toggle.remove();
      shown.focus();
    } }, "Reveal");
    const copy = el("button", { type: "button", onclick: async () => {
      try {
        await navigator.clipboard.writeText(secret);
        copy.textContent = "Copied";
      } catch {
        copy.textContent = "Can't copy: reveal it";
      }
    } }, "Copy");
    return [
      el("p", {}, "Your program verifies requests with it. It is shown this once: keep it now, as you would a password."),
      shown,
      until && el("p", { class: "quiet" }, "The former secret goes on signing until ", until, "."),
      el("div", { class: "actions" }, toggle, copy,
        el("button", { type: "button", onclick: () => close() }, "I have kept it")),
    ].filter(Boolean);
  }, { byButtonOnly: true });
}
