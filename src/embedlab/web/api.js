// Calls to the server. Every failure becomes an ApiError that says what a person can do about it.

const KEY = "embedlab.key";
let kept = ""; // the key, where the browser gives no session storage

export class ApiError extends Error {
  constructor(message, { status = 0, field = null, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, field, retryAfter });
  }
}

export function key(value) {
  try {
    if (value === undefined) return sessionStorage.getItem(KEY) ?? kept;
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // fall back to memory
  }
  if (value !== undefined) kept = value;
  return kept;
}

export function address(path, params = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(params))
    for (const one of [value].flat()) if (one !== "" && one != null) url.searchParams.append(name, one);
  return url;
}

export const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});
export const of = (collection) => `api/collections/${encodeURIComponent(collection)}`;

export async function call(path, { params, method = "GET", json, signal } = {}) {
  let response;
  try {
    response = await fetch(address(path, params), {
      method,
      signal,
      cache: "no-store",
      headers: json === undefined ? headers() : { ...headers(), "Content-Type": "application/json" },
      body: json === undefined ? undefined : JSON.stringify(json),
    });
    if (response.ok) return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.");
  }
  throw await failure(response.status, () => response.json(), response.headers.get("Retry-After"));
}

export async function failure(status, body, retryAfter) {
  const told = await Promise.resolve()
    .then(body)
    .then((answer) => answer?.error ?? {}, () => ({}));
  return new ApiError(told.message || `The server answered with status ${status}.`, {
    status,
    field: told.field ?? null,
    retryAfter: Math.max(1, Math.ceil(Number(retryAfter)) || 2),
  });
}
