// The page: choose the view for the address, and do the work that all views share.

// The page loads this file alone; the modules of the view then load in parallel.
viewOf(address().parts).catch(() => {}); // `show` reports the error.
const [{ signInUrl }, { el, heading }] = await Promise.all([import("./api.js"), import("./dom.js")]);

const main = document.querySelector("main");
const name = document.title;
let shown = 0;

// Addresses: #/, #/{subscription}, #/{subscription}/{delivery}; the query belongs to the view.
function address() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { parts: path.split("/").filter(Boolean), query: new URLSearchParams(query) };
}

// Load only the view that is needed.
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
      heading("Signed out"),
      el("p", {}, "Sign in to manage your webhooks."),
      signInUrl && el("p", {}, el("a", { class: "button", href: signInUrl }, "Sign in")),
    ].filter(Boolean);
  }
  const title = error.status === 404 ? "Not found" : "Something went wrong";
  const words = error.status === 404 ? "This page doesn't exist, or you don't have access to it." : error.message;
  return [
    heading(title),
    el("p", { class: "box bad", role: "alert" }, words),
    el("p", {}, el("button", { type: "button", onclick: show }, "Try again"), " ", el("a", { href: "#/" }, "All subscriptions")),
  ];
}

window.addEventListener("hashchange", show);
show();
