// A handler in JavaScript: the same greeting, echo and fetch as the one in Rust, as a `fetch` event
// handler, which is how other edges take JavaScript, too.

import { getEnvironment } from "wasi:cli/environment@0.2.10";

addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const url = new URL(request.url);
  switch (url.pathname) {
    case "/json":
      return Response.json({ from: "Verge", method: request.method, path: url.pathname });
    case "/echo":
      return new Response(request.body, { headers: { "content-type": "application/octet-stream" } });
    case "/fetch":
      return fetchOwn(url);
    default:
      return greet(url);
  }
}

/** Answers with the greeting that the site's `GREETING` asks for; `?ttl=` lets a cache keep it. */
function greet(url) {
  const greeting = Object.fromEntries(getEnvironment()).GREETING;
  const headers = { "content-type": "text/plain; charset=utf-8" };
  const ttl = Number.parseInt(url.searchParams.get("ttl") ?? "", 10);
  if (Number.isInteger(ttl) && ttl >= 0) {
    headers["cache-control"] = `public, max-age=${ttl}`;
  }
  const text = (greeting ? `${greeting}\n` : "") + "Hello from Verge in JavaScript\n";
  return new Response(text, { headers });
}

/** Fetches `?path=` of the site that was asked and streams it on with one more field. */
async function fetchOwn(url) {
  const path = url.searchParams.get("path") ?? "";
  if (!path.startsWith("/")) {
    return new Response("say which path: /fetch?path=/x\n", { status: 400 });
  }
  const response = await fetch(new URL(path, url.origin));
  const headers = new Headers(response.headers);
  headers.set("x-handler", "hello");
  return new Response(response.body, { status: response.status, headers });
}
