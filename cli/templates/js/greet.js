// The answer itself. It knows nothing of the edge, so that Node.js can test it.

export function greet(url, greeting) {
  const headers = { "content-type": "text/plain; charset=utf-8" };
  const ttl = url.searchParams.get("ttl") ?? "";
  if (/^\d+$/.test(ttl)) {
    headers["cache-control"] = `public, max-age=${ttl}`;
    headers["cache-tag"] = "greetings";
  }
  return new Response(`${greeting} from ${url.pathname}\n`, { headers });
}
