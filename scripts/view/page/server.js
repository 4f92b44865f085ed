// Questions to the server.

// What another page could not send: see server.py.
const OWN = { "x-latentpress-page": "1" };

export async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...OWN, ...options.headers } });
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

export async function fetchBuffer(path) {
  const response = await fetch(path, { headers: OWN });
  if (!response.ok) throw new Error((await response.json()).error);
  return response.arrayBuffer();
}

// The address of a part of one of the `items` or `results`.
export function partOf(source, id, name, query = {}) {
  const asked = new URLSearchParams(query).toString();
  return `api/${source}/${id}/parts/${name}${asked && `?${asked}`}`;
}
