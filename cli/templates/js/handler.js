// A handler: it answers every request with a greeting, and lets a cache keep it where `?ttl=` says
// for how many seconds.

addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const url = new URL(request.url);
  const headers = { "content-type": "text/plain; charset=utf-8" };
  const ttl = Number.parseInt(url.searchParams.get("ttl") ?? "", 10);
  if (Number.isInteger(ttl) && ttl >= 0) {
    headers["cache-control"] = `public, max-age=${ttl}`;
    headers["cache-tag"] = "greetings";
  }
  return new Response(`Hello from ${url.pathname}\n`, { headers });
}
