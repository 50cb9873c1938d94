// The page: which view belongs to the address, and what all views have in common.

import { signInUrl } from "./api.js";
import { el, heading, problemBox } from "./dom.js";

const main = document.querySelector("main");
const name = document.title;
let shown = 0;

// The address: #/, #/{subscription}, #/{subscription}/{delivery}; what is behind a ? is the view's.
function parsed() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { parts, query: new URLSearchParams(query) };
}

// Only what is looked at is loaded.
function viewOf(parts) {
  if (parts.length === 0) return import("./subscriptions.js");
  return parts.length === 1 ? import("./subscription.js") : import("./delivery.js");
}

async function show() {
  const turn = ++shown;
  const stopped = () => turn !== shown;
  let content;
  try {
    const { parts, query } = parsed();
    main.setAttribute("aria-busy", "true");
    const view = await viewOf(parts);
    content = await view.show({ parts, query, stopped, reload: show });
  } catch (error) {
    content = failed(error);
  }
  if (stopped()) return;
  main.removeAttribute("aria-busy");
  main.replaceChildren(...[content].flat());
  const title = main.querySelector("h1");
  document.title = title ? `${title.textContent} · ${name}` : name;
  if (turn > 1) title?.focus();
}

function failed(error) {
  if (error.status === 401) {
    return [
      heading("You are signed out"),
      el("p", {}, "Sign in to look after your webhooks."),
      signInUrl && el("p", {}, el("a", { class: "button", href: signInUrl }, "Sign in")),
    ].filter(Boolean);
  }
  const title = error.status === 404 ? "Not found" : "That didn't work";
  const words = error.status === 404 ? "There is no such thing, or it isn't yours." : error.message;
  return [
    heading(title),
    problemBox({ title, message: words }),
    el("p", {}, el("button", { type: "button", onclick: show }, "Try again"), " ", el("a", { href: "#/" }, "All subscriptions")),
  ];
}

window.addEventListener("hashchange", show);
show();
