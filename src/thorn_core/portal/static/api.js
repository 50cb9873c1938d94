// Calls of the REST resource.

const meta = (name) => document.querySelector(`meta[name="thorn-${name}"]`).content;
const HOOKS = meta("hooks");
const BESIDE = meta("beside");
const CSRF = meta("csrf");
// Milliseconds.
const PATIENCE = 60_000;

export const signInUrl = meta("sign-in");
export const hookPath = (id, call) => `${HOOKS}${encodeURIComponent(id)}/${call ? `${call}/` : ""}`;
export const deliveryPath = (id, call) => `${BESIDE}deliveries/${encodeURIComponent(id)}/${call ? `${call}/` : ""}`;
export const hooksPath = HOOKS;
export const eventTypesPath = `${BESIDE}event-types/`;

// An error that the resource reports (RFC 9457), or a connection that failed.
export class Problem extends Error {
  constructor({ status = 0, title, detail, errors = [] }) {
    super(detail ?? title ?? "");
    this.status = status;
    this.title = title;
    this.errors = errors;
  }
}

export async function call(method, path, { body, headers = {}, query } = {}) {
  const asked = query && String(query) ? `${path}?${query}` : path;
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (method !== "GET" && CSRF) sent["X-CSRFToken"] = CSRF;
  let response;
  try {
    response = await fetch(asked, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Problem({
      title: "No response",
      detail: late ? "The server did not respond within a minute. Try again." : "The server could not be reached. Try again.",
    });
  }
  const value = response.status === 204 ? null : await decoded(response);
  if (!response.ok) throw new Problem({ status: response.status, ...value });
  return { value, status: response.status };
}

async function decoded(response) {
  try {
    return await response.json();
  } catch {
    throw new Problem({
      status: response.status,
      title: `Status ${response.status}`,
      detail: "The server sent a response that is not JSON. Reload the page.",
    });
  }
}

export const get = (path, query) => call("GET", path, { query });
export const post = (path, body) => call("POST", path, { body });

// The query of the next page. Its link may name a different host than the browser uses.
export const nextQuery = (page) => (page.next ? new URL(page.next, location.href).searchParams : null);

// Poll a delivery until it is finished, or was attempted and waits for its next attempt. Gives null
// after about 15 seconds.
const LOOKS = [100, 200, 400, 800, 1500, 2500, 4000, 6000];

export async function finished(id, { attempts = 0, stopped = () => false } = {}) {
  let tried = false;
  for (const pause of LOOKS) {
    try {
      const { value } = await get(deliveryPath(id));
      const { state } = value;
      // A response may contain the attempt but still the old state, so look once more.
      if (state === "held" || (state !== "in_flight" && (state !== "pending" || tried))) return value;
      tried = value.attempts.length > attempts;
    } catch (error) {
      // The delivery doesn't exist until its message is routed.
      if (error.status !== 404) throw error;
    }
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    if (stopped()) break;
  }
  return null;
}
