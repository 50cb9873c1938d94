// The page: which view belongs to the address, and what all views have in common.

// The page asks for this file alone; what the view needs is then asked for all at once.
viewOf(address().parts).catch(() => {}); // What went wrong, `show` says.
const [{ signInUrl }, { el, heading }] = await Promise.all([import("./api.js"), import("./dom.js")]);

const main = document.querySelector("main");
const name = document.title;
let shown = 0;

// The address: #/, #/{subscription}, #/{subscription}/{delivery}; what is behind a ? is the view's.
function address() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { parts: path.split("/").filter(Boolean), query: new URLSearchParams(query) };
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
    const { parts, query } = address();
    main.setAttribute("aria-busy", "true");
    const view = await viewOf(parts);
    content = await view.show({ parts: parts.map(decodeURIComponent), query, stopped, reload: show });
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
    el("p", { class: "box bad", role: "alert" }, words),
    el("p", {}, el("button", { type: "button", onclick: show }, "Try again"), " ", el("a", { href: "#/" }, "All subscriptions")),
  ];
}

window.addEventListener("hashchange", show);
show();
