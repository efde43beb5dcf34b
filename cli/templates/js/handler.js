// A handler: it answers every request with a greeting, and lets a cache keep it where `?ttl=` says
// for how many seconds.

import { getEnvironment } from "wasi:cli/environment@0.2.10";
import { greet } from "./greet.js";

addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const environment = Object.fromEntries(getEnvironment());
  return greet(new URL(request.url), environment.GREETING ?? "Hello");
}
