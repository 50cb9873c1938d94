// The subscriptions of the signed-in user.

import { get, hooksPath, nextQuery } from "./api.js";
import { busy, button, dotted, el, heading, table, time } from "./dom.js";
import { health } from "./health.js";

export async function show() {
  const { value: first } = await get(hooksPath);
  const add = button("Add subscription", async () => {
    const { edit } = await import("./editor.js");
    await edit();
  }, { class: "main" });
  const top = el("div", { class: "title" }, heading("Subscriptions"), add);
  if (first.items.length === 0) {
    return [top, el("div", { class: "box empty" },
      el("p", {}, "You have no subscriptions yet."),
      el("p", { class: "quiet" }, "A subscription sends the events you choose to your URL as signed requests."))];
  }
  const list = table(["Recipient", "Events", "State", "Created"], "Subscriptions");
  const more = el("button", { type: "button", onclick: () => busy(more, further) }, "Show more");
  let next;
  const fill = (page) => {
    for (const hook of page.items) list.add(row(hook));
    next = nextQuery(page);
    more.hidden = !next;
  };
  async function further() {
    fill((await get(hooksPath, next)).value);
  }
  fill(first);
  return [top, list.element, el("p", { class: "actions" }, more)];
}

function row(hook) {
  return [
    [
      el("a", { href: `#/${encodeURIComponent(hook.id)}`, class: "url" }, hook.url),
      hook.description && el("span", { class: "quiet under" }, hook.description),
    ].filter(Boolean),
    el("span", { class: "patterns" }, hook.event.map(dotted)),
    health(hook),
    time(hook.created_at),
  ];
}
