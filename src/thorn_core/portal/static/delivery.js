// One delivery: its message, and the request and response of each attempt.

import { deliveryPath, get, hookPath, post, finished } from "./api.js";
import { block, button, duration, el, facts, heading, notify, printable, readable, state, time } from "./dom.js";
import { signatureCheck } from "./signatures.js";

export async function show({ parts: [hookId, id], stopped, reload }) {
  const [{ value: delivery }, hook] = await Promise.all([
    get(deliveryPath(id)),
    // An operator may open a delivery whose subscription was deleted.
    get(hookPath(hookId)).then(({ value }) => value, () => null),
  ]);
  const attempts = delivery.attempts.toReversed();
  const waits = ["pending", "held"].includes(delivery.state);
  const over = !waits && delivery.state !== "in_flight";
  return [
    el("p", { class: "crumbs" }, el("a", { href: "#/" }, "Subscriptions"), " / ",
      el("a", { href: `#/${encodeURIComponent(hookId)}` }, hook?.url ?? delivery.origin ?? delivery.subscription_id)),
    el("div", { class: "title" }, heading(delivery.event), state(delivery.state)),
    el("div", { class: "actions" },
      over && button("Retry", () => retry(delivery, { stopped, reload }), { class: "main" }),
      waits && button("Cancel", () => cancel(delivery, reload), { class: "danger" }),
      button("Refresh", reload)),
    facts([
      ["Created", time(delivery.created_at)],
      ["Finished", delivery.finished_at && time(delivery.finished_at)],
      ["Next attempt", delivery.state === "held" ? "when the subscription is resumed" : delivery.due_at && time(delivery.due_at)],
      ["Reason", printable(delivery.reason ?? "")],
      ["Message", el("code", {}, delivery.message_id)],
      ["Delivery", el("code", {}, delivery.id)],
    ]),
    delivery.message && el("section", { "aria-labelledby": "payload" }, el("h2", { id: "payload" }, "Payload"),
      block(readable(JSON.stringify(delivery.message.data)), "Payload")),
    el("section", { "aria-labelledby": "attempts" }, el("h2", { id: "attempts" }, "Attempts"),
      attempts.length === 0 && el("p", { class: "quiet" }, "No attempts yet."),
      attempts.map((attempt, n) => attemptPart(attempt, delivery, hook, n === 0))),
  ].filter(Boolean);
}

async function cancel(delivery, reload) {
  await post(deliveryPath(delivery.id, "cancel"));
  notify("Delivery cancelled.");
  await reload();
}

async function retry(delivery, { stopped, reload }) {
  await post(deliveryPath(delivery.id, "retry"));
  const now = await finished(delivery.id, { attempts: delivery.attempts.length, stopped });
  if (stopped()) return;
  if (now === null) notify("The retry is queued. No worker has picked it up yet.");
  else if (now.state === "delivered") notify("Delivered.");
  else notify(`The retry failed: ${printable(now.reason ?? now.state)}.`, "bad");
  await reload();
}

function attemptPart(attempt, delivery, hook, open) {
  const answer = attempt.status ?? printable(attempt.error ?? "no response");
  return el("details", { class: "attempt", open },
    el("summary", {},
      el("span", { class: `state ${attempt.ok ? "delivered" : "failed"}` }, String(answer)),
      ` #${attempt.number} · `, time(attempt.at), ` · ${duration(attempt.duration)}`),
    el("div", { class: "halves" },
      el("section", {}, el("h3", {}, "Request"), requestPart(attempt, delivery, hook)),
      el("section", {}, el("h3", {}, "Response"), responsePart(attempt))),
    el("h3", {}, "Signature"), signatureCheck(delivery.message_id, attempt));
}

// Requests aren't stored; this rebuilds one from the delivery and its subscription.
function requestPart(attempt, delivery, hook) {
  const timestamp = Math.floor(Date.parse(attempt.at) / 1000);
  const own = Object.entries(hook?.headers ?? {}).map(([name, value]) => `${name}: ${value ?? "••••••••"}`);
  const lines = [
    `POST ${hook?.url ?? delivery.origin ?? ""}`,
    hook && `Content-Type: ${hook.content_type}`,
    `Hook-Event: ${delivery.event}`,
    `Hook-Delivery: ${delivery.id}`,
    `Hook-Subscription: ${delivery.subscription_id}`,
    `webhook-id: ${delivery.message_id}`,
    `webhook-timestamp: ${timestamp}`,
    ...own,
  ];
  return [
    block(printable(lines.filter(Boolean).join("\n")), "Request"),
    el("p", { class: "quiet hint" }, "URL, content type and custom headers show the subscription's current settings. ",
      "The body is the payload inside its envelope."),
  ];
}

function responsePart(attempt) {
  if (attempt.status === null) {
    return el("p", {}, `No response: ${printable(attempt.error ?? (attempt.timed_out ? "timed out" : "unknown error"))}`);
  }
  const headers = Object.entries(attempt.headers).map(([name, value]) => `${name}: ${value}`);
  return [
    block(printable([`${attempt.status}`, ...headers].join("\n")), "Response"),
    attempt.body ? block(readable(attempt.body), "Response body") : el("p", { class: "quiet hint" }, "No body."),
  ];
}
