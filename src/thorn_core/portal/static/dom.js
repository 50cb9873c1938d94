// Build elements and format values. Text stays text; nothing here parses markup.

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  return filled(element, properties, children);
}

export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return filled(element, properties, children);
}

const isThere = (value) => value !== null && value !== undefined && value !== false;

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (!isThere(value)) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(isThere));
  return element;
}

export function button(words, onclick, properties = {}) {
  return el("button", { type: "button", ...properties, onclick: (event) => busy(event.currentTarget, onclick) }, words);
}

// Disable the control while its action runs.
export async function busy(control, action) {
  if (control.getAttribute("aria-disabled") === "true") return;
  control.setAttribute("aria-disabled", "true");
  try {
    await action();
  } catch (error) {
    notify(error.message, "bad");
  } finally {
    control.removeAttribute("aria-disabled");
  }
}

// -- notices: only the latest is shown

const NOTICE_MILLISECONDS = 8000;

export function notify(text, kind = "good") {
  const notices = document.getElementById("notices");
  const notice = el("p", { class: `notice ${kind}` }, text);
  const gone = () => notice.remove();
  notice.append(el("button", { type: "button", class: "plain", "aria-label": "Dismiss", onclick: gone }, "×"));
  notices.replaceChildren(notice);
  // An error stays until it is dismissed.
  if (kind === "good") setTimeout(gone, NOTICE_MILLISECONDS);
}

export function problemBox(error) {
  return el("div", { class: "box bad", role: "alert" },
    el("strong", {}, error.title ?? "Something went wrong"), " ", error.message);
}

// -- dialogs

// Open a modal dialog. `fill(close)` returns its content, which is removed when it closes.
export function openDialog(title, fill, { byButtonOnly = false } = {}) {
  const before = document.activeElement;
  const heading = el("h2", { id: "dialog-title" }, title);
  const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, heading);
  return new Promise((resolve) => {
    let result;
    const close = (value) => { result = value; dialog.close(); };
    dialog.append(...[fill(close)].flat());
    // A secret is shown once, so Escape must not close its dialog.
    if (byButtonOnly) dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      dialog.replaceChildren();
      dialog.remove();
      if (before?.isConnected) before.focus();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function confirmed(title, text, words, kind = "danger") {
  return openDialog(title, (close) => [
    el("p", {}, text),
    el("div", { class: "actions" },
      el("button", { type: "button", class: kind, onclick: () => close(true) }, words),
      el("button", { type: "button", autofocus: true, onclick: () => close(false) }, "Cancel")),
  ]);
}

// -- values

const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const WHOLE = new Intl.NumberFormat();

export function time(iso) {
  return el("time", { datetime: iso, title: iso }, DATE_TIME.format(new Date(iso)));
}

export const whole = (number) => WHOLE.format(number);

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(1000 * seconds * 10) / 10} ms`.replace(/(\d{2,})\.\d/, "$1");
  return `${(Math.round(100 * seconds) / 100)} s`;
}

export function plural(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

// Replace control and text-direction characters.
export const printable = (text) => text.replace(/[\p{Cc}\p{Cf}]/gu, (c) => ("\n\t".includes(c) ? c : "\ufffd"));

const SHOWN = 100_000;

export function readable(text) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not JSON: show it unchanged.
  }
  shown = printable(shown);
  return shown.length <= SHOWN ? shown : `${shown.slice(0, SHOWN)}\n… ${whole(shown.length - SHOWN)} more characters`;
}

export const block = (text, label) => el("pre", { tabindex: "0", role: "region", "aria-label": label }, text);

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => isThere(value) && value !== "");
  return el("dl", { class: "facts" }, shown.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, [value].flat()))));
}

export const STATES = ["pending", "in_flight", "delivered", "failed", "cancelled"];

export const state = (name) => el("span", { class: `state ${name}` }, name.replace("_", " "));

export function heading(text) {
  return el("h1", { tabindex: "-1" }, text);
}

// A dotted name that may wrap after each dot.
export function dotted(name) {
  return el("code", {}, name.split(/(?<=\.)/).flatMap((part, n) => (n ? [el("wbr"), part] : [part])));
}

// A table that becomes a list of blocks on a narrow screen; each cell carries its column's name.
export function table(columns, caption) {
  const body = el("tbody");
  const element = el("table", { class: "stacks" }, el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, columns.map((name) => el("th", { scope: "col" }, name)))), body);
  const add = (cells) => body.append(el("tr", {}, cells.map((cell, n) =>
    el("td", { "data-label": columns[n] }, [cell].flat()))));
  return { element, add, clear: () => body.replaceChildren() };
}
