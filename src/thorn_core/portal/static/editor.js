// Create or edit a subscription.

import { call, eventTypesPath, get, hookPath, hooksPath } from "./api.js";
import { busy, el, notify, openDialog, problemBox } from "./dom.js";
import { reveal } from "./secret.js";

const MASK = "••••••••";
const DIGESTS = ["sha256", "sha512", "sha1"];
const CONTENT_TYPES = ["application/json", "application/x-www-form-urlencoded"];

// Resolves with the subscription if it was created or changed, else with undefined.
export async function edit(hook) {
  const { value: types } = await get(eventTypesPath);
  const kept = await openDialog(hook ? "Edit subscription" : "Add subscription",
    (close) => form(hook, types.items, close));
  if (!kept) return undefined;
  if (kept.secret !== undefined) await reveal(kept);
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
    notify("Changes saved.");
    return value;
  }
  const { value, status } = await call("POST", hooksPath, { body, headers: { "Idempotency-Key": key } });
  // A repeated request: the response with the secret was lost.
  if (status === 200) notify("The subscription was created earlier. Rotate its secret to get a new one.");
  return value;
}

// A repeated request creates only one subscription.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// -- the form's fields, and the values they send

function fieldsOf(hook) {
  const fields = {
    url: field("url", "URL", el("input", { type: "url", autocomplete: "off", spellcheck: "false", autofocus: true, value: hook?.url }),
      "Requests go to this address, such as https://example.com/hook", (text) => text.trim()),
    event: field("event", "Events", area(hook?.event.join("\n") ?? "", 3),
      "One pattern per line: article.published, article.*, or * for all events", lines),
    description: field("description", "Description", el("input", { type: "text", value: hook?.description }),
      "Optional note", (text) => text),
    content_type: field("content_type", "Content type",
      el("input", { type: "text", value: hook?.content_type ?? CONTENT_TYPES[0], list: "content-types" }),
      "Encoding of the request body", (text) => text.trim()),
    hmac_digest: field("hmac_digest", "Hook-HMAC digest", el("select", {},
      DIGESTS.map((name) => el("option", { selected: name === (hook?.hmac_digest ?? DIGESTS[0]) }, name))),
    "Hash function of the Hook-HMAC header only", (text) => text),
    headers: field("headers", "Headers", area(headerLines(hook?.headers ?? {}), 2),
      "One per line, added to each request, such as X-Shop: 7", headersOf),
    rate_limit: field("rate_limit", "Rate limit",
      el("input", { type: "text", inputmode: "decimal", value: hook?.rate_limit }),
      "Maximum requests per second; leave empty for no limit", numberOf),
  };
  fields.content_type.element.append(el("datalist", { id: "content-types" },
    CONTENT_TYPES.map((type) => el("option", { value: type }))));
  if (!hook) {
    fields.hmac_secret = field("hmac_secret", "Secret",
      el("input", { type: "password", autocomplete: "off" }),
      "Leave empty to generate one", (text) => text);
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
  return el("details", { class: "more" }, el("summary", {}, "Available events"),
    el("ul", { class: "suggestions" }, types.map((kind) => el("li", {},
      el("button", { type: "button", onclick: () => add(kind.event) }, kind.event),
      kind.description && el("span", { class: "quiet" }, " ", kind.description)))));
}

// Send only the changed fields of an existing subscription, so concurrent changes survive.
function bodyOf(fields, hook) {
  const said = Object.entries(fields).filter(([name, each]) =>
    (hook ? each.changed() : name !== "hmac_secret" || each.changed()));
  return Object.fromEntries(said.map(([name, each]) => [name, each.read()]));
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// Send text that is not a number unchanged; the resource explains the error.
function numberOf(text) {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  return Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
}

const headerLines = (headers) =>
  Object.entries(headers).map(([name, value]) => `${name}: ${value ?? MASK}`).join("\n");

// A hidden value is null; sent back as null, it stays unchanged.
function headersOf(text) {
  return Object.fromEntries(lines(text).map((line) => {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon).trim();
    const value = colon < 0 ? "" : line.slice(colon + 1).trim();
    return [name, value === MASK ? null : value];
  }));
}

// -- validation errors

function show(error, fields, problems) {
  const others = [];
  for (const fault of error.errors ?? []) {
    const [name, ...inner] = fault.field.split(".");
    // The message already names the pattern.
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
