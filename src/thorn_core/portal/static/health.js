// The health of a subscription in one word.

import { el, time } from "./dom.js";

export function health(hook) {
  if (!hook.enabled) return el("span", { class: "state disabled" }, "disabled");
  if (hook.paused) return el("span", { class: "state held" }, "paused");
  if (hook.failing_since) {
    return el("span", {}, el("span", { class: "state failed" }, "failing"),
      el("span", { class: "quiet under" }, "since ", time(hook.failing_since)));
  }
  return el("span", { class: "state delivered" }, "active");
}
