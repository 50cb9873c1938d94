// Makes a subscription, or changes one.

import { call, eventTypesPath, get, hookPath, hooksPath } from "./api.js";
import { busy, el, notify, openDialog, problemBox } from "./dom.js";
import { reveal } from "./secret.js";

const MASK = "••••••••";
const DIGESTS = ["sha256", "sha512", "sha1"];
const CONTENT_TYPES = ["application/json", "application/x-www-form-urlencoded"];

// Resolves when something was changed, with the subscription; else with undefined.
export async function edit(hook) {
  const { value: types } = await get(eventTypesPath);
  const kept = await openDialog(hook ? "Edit subscription" : "Add subscription",
    (close) => form(hook, types.items, close));
  if (!kept) return undefined;
  if (kept.secret) await reveal(kept.secret);
  if (!hook) location.hash = `#/${encodeURIComponent(kept.id)}`;
  return kept;
}

function form(hook, types, close) {
  const key = hook ? null : newKey();
  const fields = fieldsOf(hook);
  const problems = el("div");
  const save = el("button", { type: "submit", class: "main" }, hook ? "Save" : "Subscribe");
  const submit = async () => {
    problems.replaceChildren();
    for (const field of Object.values(fields)) field.clear();
    try {
      close(await send(hook, key, bodyOf(fields, hook)));
    } catch (error) {
      show(error, fields, problems);
    }
  };
  const more = el("details", { class: "more" }, el("summary", {}, "More"),
    fields.hmac_secret?.element, fields.content_type.element, fields.hmac_digest.element,
    fields.headers.element, fields.rate_limit.element);
  return el("form", {
    novalidate: true,
    onsubmit: (event) => { event.preventDefault(); busy(save, submit); },
  },
  problems, fields.url.element, fields.event.element, suggestions(types, fields.event.input),
  fields.description.element, more,
  el("div", { class: "actions" }, save,
    el("button", { type: "button", onclick: () => close() }, "Cancel")));
}

async function send(hook, key, body) {
  if (hook) {
    const { value } = await call("PATCH", hookPath(hook.id), { body });
    notify("The subscription was changed.");
    return value;
  }
  const { value, status } = await call("POST", hooksPath, { body, headers: { "Idempotency-Key": key } });
  // The first answer was lost, and the secret with it.
  if (status === 200) notify("The subscription was made; rotate its secret to get one that you know.");
  return value;
}

// The same request, sent again because its answer was lost, makes one subscription only.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// -- the fields: what each shows, and what it says to the resource

function fieldsOf(hook) {
  const fields = {
    url: field("url", "URL", el("input", { type: "url", autocomplete: "off", spellcheck: "false", autofocus: true, value: hook?.url }),
      "Where requests go: https://example.com/hook", (text) => text.trim()),
    event: field("event", "Events", area(hook?.event.join("\n") ?? "", 3),
      "One pattern a line: article.published, article.*, or * for everything", lines),
    description: field("description", "Description", el("input", { type: "text", value: hook?.description }),
      "For people", (text) => text),
    content_type: field("content_type", "Content type",
      el("input", { type: "text", value: hook?.content_type ?? CONTENT_TYPES[0], list: "content-types" }),
      "How bodies are encoded", (text) => text.trim()),
    hmac_digest: field("hmac_digest", "Hook-HMAC digest", el("select", {},
      DIGESTS.map((name) => el("option", { selected: name === (hook?.hmac_digest ?? DIGESTS[0]) }, name))),
    "Of the Hook-HMAC header; others don't depend on it", (text) => text),
    headers: field("headers", "Headers", area(headerLines(hook?.headers ?? {}), 2),
      "One a line, sent with each request: X-Shop: 7", headersOf),
    rate_limit: field("rate_limit", "Rate limit",
      el("input", { type: "text", inputmode: "decimal", value: hook?.rate_limit }),
      "Requests a second at most; empty is unlimited", numberOf),
  };
  fields.content_type.element.append(el("datalist", { id: "content-types" },
    CONTENT_TYPES.map((type) => el("option", { value: type }))));
  if (!hook) {
    fields.hmac_secret = field("hmac_secret", "Secret",
      el("input", { type: "password", autocomplete: "off" }),
      "One that both sides know already; empty makes one", (text) => text);
  }
  return fields;
}

const area = (text, rows) => el("textarea", { rows, spellcheck: "false" }, text);

function field(name, label, input, hint, read) {
  const id = `field-${name}`;
  input.id = id;
  input.name = name;
  input.setAttribute("aria-describedby", `${id}-hint ${id}-fault`);
  const fault = el("p", { class: "fault", id: `${id}-fault` });
  const before = input.value;
  return {
    input,
    element: el("div", { class: "field" }, el("label", { for: id }, label), input,
      el("p", { class: "quiet hint", id: `${id}-hint` }, hint), fault),
    read: () => read(input.value),
    changed: () => input.value !== before,
    clear: () => { fault.textContent = ""; input.removeAttribute("aria-invalid"); },
    fault: (text) => {
      fault.textContent = fault.textContent ? `${fault.textContent} ${text}` : text;
      input.setAttribute("aria-invalid", "true");
    },
  };
}

function suggestions(types, input) {
  const add = (pattern) => {
    const there = lines(input.value);
    if (!there.includes(pattern)) input.value = [...there, pattern].join("\n");
    input.focus();
  };
  if (types.length === 0) return null;
  return el("details", { class: "more" }, el("summary", {}, "What there is to subscribe to"),
    el("ul", { class: "suggestions" }, types.map((kind) => el("li", {},
      el("button", { type: "button", onclick: () => add(kind.event) }, kind.event),
      kind.description && el("span", { class: "quiet" }, " ", kind.description)))));
}

// Of what is there already, only what was changed: what others change meanwhile stays.
function bodyOf(fields, hook) {
  const said = Object.entries(fields).filter(([name, each]) =>
    (hook ? each.changed() : name !== "hmac_secret" || each.changed()));
  return Object.fromEntries(said.map(([name, each]) => [name, each.read()]));
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// Text that is no number goes as it is: the resource says what is wrong with it.
function numberOf(text) {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  return Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
}

const headerLines = (headers) =>
  Object.entries(headers).map(([name, value]) => `${name}: ${value ?? MASK}`).join("\n");

// A value that isn't shown is null; sent back as that, it stays.
function headersOf(text) {
  return Object.fromEntries(lines(text).map((line) => {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon).trim();
    const value = colon < 0 ? "" : line.slice(colon + 1).trim();
    return [name, value === MASK ? null : value];
  }));
}

// -- what was wrong

function show(error, fields, problems) {
  const others = [];
  for (const fault of error.errors ?? []) {
    const [name, ...inner] = fault.field.split(".");
    // Which of the patterns it is, the message says itself.
    const rest = inner.filter((part) => !/^\d+$/.test(part));
    const allowed = fault.allowed?.length ? ` (allowed: ${fault.allowed.join(", ")})` : "";
    const words = `${rest.length ? `${rest.join(".")} ` : ""}${fault.message.replace(/\.$/, "")}${allowed}.`;
    if (fields[name]) fields[name].fault(words);
    else others.push(`${fault.field} ${words}`);
  }
  const first = Object.values(fields).find((each) => each.input.getAttribute("aria-invalid"));
  first?.input.closest("details")?.setAttribute("open", "");
  first?.input.focus();
  if (!error.errors?.length || others.length) {
    problems.replaceChildren(problemBox({ title: error.title, message: others.join(" ") || error.message }));
  }
}
