// One delivery: its message, and each attempt: what was requested, and what came back.

import { deliveryPath, get, hookPath, post, settled } from "./api.js";
import { block, button, duration, el, facts, heading, notify, printable, readable, state, time } from "./dom.js";
import { signatureCheck } from "./signatures.js";

export async function show({ parts: [hookId, id], stopped, reload }) {
  const [{ value: delivery }, hook] = await Promise.all([
    get(deliveryPath(id)),
    // Operators look at deliveries whose subscription is gone.
    get(hookPath(hookId)).then(({ value }) => value, () => null),
  ]);
  const attempts = delivery.attempts.toReversed();
  const over = !["pending", "in_flight"].includes(delivery.state);
  return [
    el("p", { class: "crumbs" }, el("a", { href: "#/" }, "Subscriptions"), " / ",
      el("a", { href: `#/${encodeURIComponent(hookId)}` }, hook?.url ?? delivery.recipient)),
    el("div", { class: "title" }, heading(delivery.event), state(delivery.state)),
    el("div", { class: "actions" },
      over && button("Retry", () => retry(delivery, { stopped, reload }), { class: "main" }),
      button("Refresh", reload)),
    facts([
      ["Made", time(delivery.created_at)],
      ["Settled", delivery.settled_at && time(delivery.settled_at)],
      ["Next attempt", delivery.due_at && time(delivery.due_at)],
      ["Why", printable(delivery.reason ?? "")],
      ["Message", el("code", {}, delivery.message_id)],
      ["Delivery", el("code", {}, delivery.id)],
    ]),
    delivery.message && el("section", { "aria-labelledby": "payload" }, el("h2", { id: "payload" }, "Payload"),
      block(readable(JSON.stringify(delivery.message.data)), "Payload")),
    el("section", { "aria-labelledby": "attempts" }, el("h2", { id: "attempts" }, "Attempts"),
      attempts.length === 0 && el("p", { class: "quiet" }, "None yet."),
      attempts.map((attempt, n) => attemptPart(attempt, delivery, hook, n === 0))),
  ].filter(Boolean);
}

async function retry(delivery, { stopped, reload }) {
  await post(deliveryPath(delivery.id, "retry"));
  const now = await settled(delivery.id, { attempts: delivery.attempts.length, stopped });
  if (stopped()) return;
  if (now === null) notify("It waits for a worker.");
  else if (now.state === "delivered") notify("It was delivered.");
  else notify(`It failed again: ${printable(now.reason ?? now.state)}.`, "bad");
  await reload();
}

function attemptPart(attempt, delivery, hook, open) {
  const answer = attempt.status ?? printable(attempt.error ?? "no response");
  return el("details", { class: "attempt", open },
    el("summary", {},
      el("span", { class: `state ${attempt.ok ? "delivered" : "exhausted"}` }, String(answer)),
      ` #${attempt.number} · `, time(attempt.at), ` · ${duration(attempt.duration)}`),
    el("div", { class: "halves" },
      el("section", {}, el("h3", {}, "Request"), requestPart(attempt, delivery, hook)),
      el("section", {}, el("h3", {}, "Response"), responsePart(attempt))),
    el("h3", {}, "Signature"), signatureCheck(delivery.message_id, attempt));
}

// Requests aren't kept: what each one held is known from what it was made of.
function requestPart(attempt, delivery, hook) {
  const timestamp = Math.floor(Date.parse(attempt.at) / 1000);
  const own = Object.entries(hook?.headers ?? {}).map(([name, value]) => `${name}: ${value ?? "••••••••"}`);
  const lines = [
    `POST ${hook?.url ?? delivery.recipient}`,
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
    el("p", { class: "quiet hint" }, "URL, content type and own headers are those of the subscription as it is now. ",
      "The body is the payload in its envelope."),
  ];
}

function responsePart(attempt) {
  if (attempt.status === null) {
    return el("p", {}, `There was none: ${printable(attempt.error ?? (attempt.timed_out ? "no response in time" : "unknown"))}`);
  }
  const headers = Object.entries(attempt.headers).map(([name, value]) => `${name}: ${value}`);
  return [
    block(printable([`${attempt.status}`, ...headers].join("\n")), "Response"),
    attempt.body ? block(readable(attempt.body), "Response body") : el("p", { class: "quiet hint" }, "No body."),
  ];
}
