// Elements and how values are shown. Text is always text: nothing here reads markup.

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

// While it is being done, it can't be asked for again.
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

// -- what is told in passing: the last of it

const TOLD = 8000;

export function notify(text, kind = "good") {
  const notices = document.getElementById("notices");
  const notice = el("p", { class: `notice ${kind}` }, text);
  const gone = () => notice.remove();
  notice.append(el("button", { type: "button", class: "plain", "aria-label": "Dismiss", onclick: gone }, "×"));
  notices.replaceChildren(notice);
  // What went wrong stays until it is read.
  if (kind === "good") setTimeout(gone, TOLD);
}

export function problemBox(error) {
  return el("div", { class: "box bad", role: "alert" },
    el("strong", {}, error.title ?? "That didn't work"), " ", error.message);
}

// -- dialogs

// A dialog over the page; `fill(close)` gives its content, and it is gone with what it held when closed.
export function openDialog(title, fill, { byButtonOnly = false } = {}) {
  const before = document.activeElement;
  const heading = el("h2", { id: "dialog-title" }, title);
  const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, heading);
  return new Promise((resolve) => {
    let result;
    const close = (value) => { result = value; dialog.close(); };
    dialog.append(...[fill(close)].flat());
    // What can't be had again isn't lost by a key.
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

// What steers a terminal or the direction of writing is shown as what it is.
export const printable = (text) => text.replace(/[\p{Cc}\p{Cf}]/gu, (c) => ("\n\t".includes(c) ? c : "\ufffd"));

const SHOWN = 100_000;

export function readable(text) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // It is no JSON: shown as it is.
  }
  shown = printable(shown);
  return shown.length <= SHOWN ? shown : `${shown.slice(0, SHOWN)}\n… ${whole(shown.length - SHOWN)} characters more`;
}

export const block = (text, label) => el("pre", { tabindex: "0", role: "region", "aria-label": label }, text);

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => isThere(value) && value !== "");
  return el("dl", { class: "facts" }, shown.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, [value].flat()))));
}

export const STATES = ["pending", "in_flight", "delivered", "exhausted", "discarded"];

export const state = (name) => el("span", { class: `state ${name}` }, name.replace("_", " "));

export function heading(text) {
  return el("h1", { tabindex: "-1" }, text);
}

// A name of words joined by dots: too long for a line, it breaks behind a dot.
export function dotted(name) {
  return el("code", {}, name.split(/(?<=\.)/).flatMap((part, n) => (n ? [el("wbr"), part] : [part])));
}

// A table that is a list of blocks on a narrow screen: each cell knows its column's name.
export function table(columns, caption) {
  const body = el("tbody");
  const element = el("table", { class: "stacks" }, el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, columns.map((name) => el("th", { scope: "col" }, name)))), body);
  const add = (cells) => body.append(el("tr", {}, cells.map((cell, n) =>
    el("td", { "data-label": columns[n] }, [cell].flat()))));
  return { element, add, clear: () => body.replaceChildren() };
}
