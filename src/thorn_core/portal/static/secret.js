// Show a secret once. The page drops it when the dialog closes.

import { el, openDialog } from "./dom.js";

// Takes the resource's response. Without a shared secret, recipients need only the public key.
export function reveal({ secret, public_key: publicKey }, until) {
  if (!secret) {
    return openDialog("Public key", (close) => [
      el("p", {}, "Use this key to verify requests. It is not a secret: this subscription's page shows it, too."),
      el("code", { class: "secret", tabindex: "0" }, publicKey ?? ""),
      until && el("p", { class: "quiet" }, "The old key keeps signing until ", until, "."),
      el("div", { class: "actions" },
        el("button", { type: "button", autofocus: true, onclick: () => close() }, "Close")),
    ].filter(Boolean));
  }
  return openDialog("Signing secret", (close) => {
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
        copy.textContent = "Copy failed";
      }
    } }, "Copy");
    return [
      el("p", {}, "Use this secret to verify requests. It is shown only once, so save it now, as you would a password."),
      shown,
      until && el("p", { class: "quiet" }, "The old secret keeps signing until ", until, "."),
      el("div", { class: "actions" }, toggle, copy,
        el("button", { type: "button", onclick: () => close() }, "I've saved it")),
    ].filter(Boolean);
  }, { byButtonOnly: true });
}
