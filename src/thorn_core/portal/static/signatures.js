// Compute the signature of an attempt (Standard Webhooks 1.0) from a secret and a body that users
// enter. The page neither sends nor stores them.

import { busy, el } from "./dom.js";

const PREFIX = "whsec_";

export function signatureCheck(messageId, attempt) {
  const timestamp = Math.floor(Date.parse(attempt.at) / 1000);
  if (!globalThis.crypto?.subtle) {
    return el("p", { class: "quiet" }, "Open this page over HTTPS to check signatures here.");
  }
  const id = (name) => `signature-${name}-${attempt.number}`;
  const secret = el("input", { type: "password", id: id("secret"), autocomplete: "off", required: true });
  const body = el("textarea", { id: id("body"), rows: 3, spellcheck: "false" });
  const received = el("input", { type: "text", id: id("received"), spellcheck: "false", autocomplete: "off" });
  const told = el("output", { class: "signature" });
  const check = el("button", { type: "submit" }, "Compute");
  const submit = async () => {
    try {
      const signature = `v1,${await sign(secret.value.trim(), `${messageId}.${timestamp}.${body.value}`)}`;
      const known = received.value.trim();
      const verdict = known && (known.split(/\s+/).includes(signature) ? "The signatures match. " : "The signatures differ. ");
      told.replaceChildren(verdict, "webhook-signature: ", el("code", {}, signature));
    } catch {
      told.replaceChildren("This is not a valid secret: it must be base64, after whsec_ or alone.");
    }
  };
  const field = (label, input) => el("div", { class: "field" }, el("label", { for: input.id }, label), input);
  return el("details", { class: "more" }, el("summary", {}, "Check a signature"),
    el("p", { class: "quiet hint" }, "The signature covers ", el("code", {}, `${messageId}.${timestamp}.`),
      " followed by the exact bytes of the body. It is computed in your browser; the secret is not sent anywhere."),
    el("form", { autocomplete: "off", onsubmit: (event) => { event.preventDefault(); busy(check, submit); } },
      field("Secret", secret), field("Body, exactly as received", body),
      field("Received webhook-signature header (optional)", received),
      el("div", { class: "actions" }, check), told));
}

export async function sign(secret, text) {
  const encoder = new TextEncoder();
  const coded = secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret;
  const raw = Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
  const key = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const digest = new Uint8Array(await crypto.subtle.sign("HMAC", key, encoder.encode(text)));
  return btoa(String.fromCharCode(...digest));
}
