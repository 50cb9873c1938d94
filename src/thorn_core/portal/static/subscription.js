// One subscription: its settings, actions, activity and deliveries.

import { call, get, hookPath, post, finished } from "./api.js";
import { button, confirmed, dotted, el, facts, heading, notify, openDialog, plural, printable, time, busy, problemBox } from "./dom.js";
import { charts } from "./charts.js";
import { edit } from "./editor.js";
import { health } from "./health.js";
import { deliveryLog } from "./log.js";
import { reveal } from "./secret.js";

export async function show({ parts: [id], query, stopped, reload }) {
  const { value: hook } = await get(hookPath(id));
  const log = deliveryLog(id, query);
  const pictures = charts(id, query);
  const refresh = () => Promise.all([log.refresh(), pictures.refresh()]);
  refresh().catch((error) => notify(error.message, "bad"));
  return [
    el("p", { class: "crumbs" }, el("a", { href: "#/" }, "Subscriptions")),
    el("div", { class: "title" }, el("div", {}, heading(hook.url),
      hook.description && el("p", { class: "quiet" }, hook.description)), health(hook)),
    trouble(hook),
    actions(hook, { refresh, reload, stopped }),
    about(hook),
    pictures.element,
    log.element,
  ].filter(Boolean);
}

function trouble(hook) {
  if (hook.enabled && !hook.paused) return null;
  const reason = hook.disabled_reason ? `: ${printable(hook.disabled_reason)}` : "";
  return el("p", { class: "box warn" }, hook.enabled
    ? "Paused. Deliveries are held until you resume this subscription."
    : `Disabled${reason}. Nothing is sent until you enable this subscription.`);
}

function actions(hook, page) {
  const change = async (done, words) => {
    await done;
    notify(words);
    await page.reload();
  };
  const enable = () => change(call("PATCH", hookPath(hook.id), { body: { enabled: true } }), "Subscription enabled.");
  const pause = () => change(post(hookPath(hook.id, "pause")), "Subscription paused.");
  const resume = () => change(post(hookPath(hook.id, "resume")), "Subscription resumed.");
  return el("div", { class: "actions" },
    hook.enabled && button("Send test", () => test(hook, page), { class: "main" }),
    !hook.enabled && button("Enable", enable, { class: "main" }),
    hook.paused ? button("Resume", resume, { class: "main" }) : button("Pause", pause),
    button("Edit", async () => { if (await edit(hook)) await page.reload(); }),
    button("Rotate secret", () => rotate(hook, page)),
    hook.enabled && button("Recover …", () => recover(hook, page)),
    button("Delete", () => remove(hook), { class: "danger" }));
}

async function test(hook, page) {
  const { value: sent } = await post(hookPath(hook.id, "test"));
  const delivery = await finished(sent.delivery_id, page);
  if (page.stopped()) return;
  const last = delivery?.attempts.at(-1);
  if (delivery?.state === "delivered") notify(`Test delivered: ${last.status}.`);
  else if (last) notify(`Test failed: ${last.status ?? printable(last.error ?? "")}.`, "bad");
  else if (delivery?.state === "held") notify("The test is held until the subscription is resumed.");
  else notify("The test is queued. No worker has picked it up yet.");
  await page.refresh();
}

async function rotate(hook, page) {
  const body = await openDialog("Rotate the secret?", (close) => [
    el("p", {}, "Requests will be signed with a new secret. The current secret keeps signing for a while, so that you can update your program. If somebody else knows it, revoke it now."),
    el("div", { class: "actions" },
      el("button", { type: "button", class: "main", onclick: () => close({}) }, "Rotate"),
      el("button", { type: "button", class: "danger", onclick: () => close({ overlap: 0 }) }, "Rotate and revoke"),
      el("button", { type: "button", autofocus: true, onclick: () => close() }, "Cancel")),
  ]);
  if (!body) return;
  const { value } = await post(hookPath(hook.id, "rotate-secret"), body);
  await reveal(value, value.former_secrets_until && time(value.former_secrets_until));
  await page.reload();
}

async function remove(hook) {
  const sure = await confirmed("Delete the subscription?",
    `Nothing more will be sent to ${hook.url}, and pending deliveries are cancelled. This can't be undone.`, "Delete");
  if (!sure) return;
  await call("DELETE", hookPath(hook.id));
  notify("Subscription deleted.");
  location.hash = "#/";
}

// -- recover failed and cancelled deliveries

const HOUR = 3_600_000;

function recover(hook, page) {
  return openDialog("Recover deliveries", (close) => {
    const since = el("input", { type: "datetime-local", id: "recover-since", name: "since", required: true, value: local(new Date(Date.now() - 24 * HOUR)) });
    const missing = el("input", { type: "checkbox", name: "missing" });
    const told = el("div");
    const go = el("button", { type: "submit", class: "main" }, "Recover");
    const submit = async () => {
      try {
        const asked = { since: new Date(since.value).toISOString(), missing: missing.checked };
        const count = await recoverAll(hook.id, asked);
        close();
        notify(count ? `${plural(count, "delivery", "deliveries")} will be made.` : "There is nothing to recover since then.");
        await page.refresh();
      } catch (error) {
        told.replaceChildren(problemBox(error));
      }
    };
    return el("form", { onsubmit: (event) => { event.preventDefault(); busy(go, submit); } }, told,
      el("p", {}, "Failed and cancelled deliveries are sent again."),
      el("div", { class: "field" }, el("label", { for: "recover-since" }, "Events since"), since),
      el("div", { class: "field" }, el("label", { class: "choice" }, missing, "Also events that were never meant for this subscription when they were sent")),
      el("div", { class: "actions" }, go, el("button", { type: "button", onclick: () => close() }, "Cancel")));
  });
}

async function recoverAll(id, asked) {
  let count = 0;
  let cursor = null;
  do {
    const { value } = await post(hookPath(id, "recover"), cursor ? { ...asked, cursor } : asked);
    count += value.recovered;
    cursor = value.cursor;
  } while (cursor);
  return count;
}

// The format of a datetime-local field.
function local(date) {
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

// -- settings

function about(hook) {
  const headers = Object.entries(hook.headers).map(([name, value]) =>
    el("code", { class: "line" }, `${name}: ${printable(value ?? "••••••••")}`));
  return facts([
    ["Events", el("span", { class: "patterns" }, hook.event.map(dotted))],
    ["Content type", hook.content_type],
    ["Headers", headers.length ? headers : null],
    ["Rate limit", hook.rate_limit && `${hook.rate_limit} requests per second`],
    ["Public key", hook.public_key && el("code", {}, hook.public_key)],
    ["Owner", hook.owner],
    ["Created", time(hook.created_at)],
    ["ID", el("code", {}, hook.id)],
  ]);
}
