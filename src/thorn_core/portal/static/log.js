// The deliveries of a subscription. The filters live in the address.

import { get, hookPath, nextQuery } from "./api.js";
import { busy, button, dotted, el, printable, problemBox, state, STATES, table, time } from "./dom.js";

const PAGE = "25";

export function deliveryLog(id, query) {
  const asked = { state: query.getAll("state"), event: query.get("event") ?? "", since: query.get("since") ?? "", until: query.get("until") ?? "" };
  const list = table(["Time", "Event", "State", "Attempts", "Reason"], "Deliveries");
  const told = el("div", { "aria-live": "polite" });
  const more = el("button", { type: "button", hidden: true, onclick: () => busy(more, further) }, "Show more");
  let next = null;

  const fill = (page) => {
    for (const delivery of page.items) list.add(row(id, delivery));
    next = nextQuery(page);
    more.hidden = !next;
    list.element.hidden = !list.element.querySelector("tbody tr");
    told.replaceChildren(list.element.hidden ? none(asked) : "");
  };
  async function further() {
    fill((await get(hookPath(id, "deliveries"), next)).value);
  }
  async function refresh() {
    try {
      const { value } = await get(hookPath(id, "deliveries"), listQuery(asked));
      list.clear();
      fill(value);
    } catch (error) {
      list.clear();
      list.element.hidden = more.hidden = true;
      told.replaceChildren(problemBox(error));
    }
  }
  const apply = (wanted) => {
    Object.assign(asked, wanted);
    remember(asked);
    return refresh();
  };
  const element = el("section", { "aria-labelledby": "deliveries" },
    el("div", { class: "title" }, el("h2", { id: "deliveries" }, "Deliveries"), button("Refresh", refresh)),
    filters(asked, apply), told, list.element, el("p", { class: "actions" }, more));
  return { element, refresh };
}

function none(asked) {
  const filtered = Object.values(asked).some((value) => value.length);
  return el("p", { class: "box empty quiet" }, filtered ? "No deliveries match these filters." : "No deliveries yet.");
}

function row(id, delivery) {
  const href = `#/${encodeURIComponent(id)}/${encodeURIComponent(delivery.id)}`;
  return [
    el("a", { href }, time(delivery.created_at)),
    dotted(delivery.event),
    state(delivery.state),
    String(delivery.attempt_count),
    delivery.due_at && delivery.attempt_count
      ? el("span", {}, delivery.reason ? `${printable(delivery.reason)}; ` : "", "next ", time(delivery.due_at))
      : printable(delivery.reason ?? ""),
  ];
}

// Times are shown and entered in local time, and sent in UTC.
function listQuery(asked) {
  const query = new URLSearchParams({ limit: PAGE });
  for (const name of asked.state) query.append("state", name);
  if (asked.event) query.set("event", asked.event);
  for (const name of ["since", "until"]) {
    const at = new Date(asked[name]);
    if (asked[name] && !Number.isNaN(at.valueOf())) query.set(name, at.toISOString());
  }
  return query;
}

// Keep the filters in the address for the back button, without loading a new view.
function remember(asked) {
  const [path, before = ""] = location.hash.split("?");
  const query = new URLSearchParams(before);
  for (const name of ["state", "event", "since", "until"]) query.delete(name);
  for (const name of asked.state) query.append("state", name);
  for (const name of ["event", "since", "until"]) if (asked[name]) query.set(name, asked[name]);
  history.replaceState(null, "", String(query) ? `${path}?${query}` : path);
}

function filters(asked, apply) {
  const boxes = STATES.map((name) => el("label", { class: "choice" },
    el("input", { type: "checkbox", name: "state", value: name, checked: asked.state.includes(name) }), name.replace("_", " ")));
  const event = el("input", { type: "text", name: "event", value: asked.event, placeholder: "article.*", "aria-label": "Event pattern", spellcheck: "false" });
  const moment = (name) => el("input", { type: "datetime-local", name, value: asked[name], "aria-label": name });
  const since = moment("since");
  const until = moment("until");
  const go = el("button", { type: "submit" }, "Filter");
  const submit = (submitted) => {
    submitted.preventDefault();
    const chosen = boxes.map((box) => box.firstChild).filter((box) => box.checked).map((box) => box.value);
    busy(go, () => apply({ state: chosen, event: event.value.trim(), since: since.value, until: until.value }));
  };
  return el("form", { class: "filters", onsubmit: submit, role: "search", "aria-label": "Filter deliveries" },
    el("fieldset", {}, el("legend", {}, "State"), boxes),
    el("label", {}, "Event", event),
    el("label", {}, "Since", since),
    el("label", {}, "Until", until), go);
}
