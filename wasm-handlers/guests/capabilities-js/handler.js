// A handler that uses each capability of an edge, one a path, and says in JSON what it was answered: an
// example of the SDK, and what the tests of it run. `verge` is `wasm-handlers/sdk/js`.

import { VergeError, cache, client, config, kv, log, secrets } from "./verge/index.js";

addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const { pathname, searchParams } = new URL(request.url);
  const act = acts[pathname];
  try {
    return Response.json(act ? { ok: act(new Query(searchParams)) ?? null } : { ok: "a good answer" });
  } catch (error) {
    if (!(error instanceof VergeError)) throw error;
    return Response.json({ code: error.code, message: error.message });
  }
}

/** The query, by the types that the SDK takes. */
class Query {
  constructor(parameters) {
    this.parameters = parameters;
  }

  text(name) {
    return this.parameters.get(name) ?? "";
  }

  number(name, otherwise) {
    return Number(this.parameters.get(name) ?? otherwise);
  }

  list(name) {
    return this.text(name).split(",").filter((item) => item !== "");
  }

  bucket() {
    return kv.open(this.text("bucket"));
  }
}

const acts = {
  "/config": (query) => config.get(query.text("key")),
  "/config/all": () => Object.fromEntries(config.all()),

  "/log": (query) => {
    for (const level of log.LEVELS) log.log(level, query.text("context"), query.text("message"));
    log.warn(query.text("context"), "by its name");
    return "logged";
  },
  "/log/level": (query) => log.log(query.text("level"), "context", "message"),

  "/cache/get": (query) => cache.getText(query.text("key")),
  "/cache/put": (query) => put(query, query.text("value")),
  "/cache/put/long": (query) => put(query, long(query)),
  "/cache/bytes": (query) => {
    const bytes = Uint8Array.of(0, 255, 128, 10);
    cache.put(query.text("key"), bytes.subarray(1), { ttl: 60 });
    return Array.from(cache.get(query.text("key")));
  },
  "/cache/purge": (query) => cache.purge(query.list("tags")),
  "/cache/many": (query) => many(query, (key) => cache.get(key)),
  "/cache/odd": (query) => odd[query.text("case")](),

  "/client": () => client.visitor(),

  "/secrets": (query) => {
    const secret = secrets.get(query.text("name"));
    return secret && { shown: `${secret} ${JSON.stringify(secret)}`, revealed: secret.reveal() };
  },
  "/secrets/leak": (query) => {
    const secret = secrets.get(query.text("name"));
    console.log(secret, `${secret}`);
    log.error("leak", JSON.stringify({ secret }));
    throw new Error(`of ${secret}`);
  },

  "/kv/get": (query) => query.bucket().getText(query.text("key")),
  "/kv/set": (query) => query.bucket().set(query.text("key"), query.text("value")),
  "/kv/set/long": (query) => query.bucket().set(query.text("key"), long(query)),
  "/kv/delete": (query) => query.bucket().delete(query.text("key")),
  "/kv/has": (query) => query.bucket().has(query.text("key")),
  "/kv/page": (query) => {
    const cursor = query.text("cursor");
    return query.bucket().page(cursor === "" ? undefined : Number(cursor));
  },
  "/kv/keys": (query) => Array.from(query.bucket().keys()),
  "/kv/get-many": (query) => {
    const found = query.bucket().getMany(query.list("keys"));
    return Array.from(found, ([key, value]) => [key, new TextDecoder().decode(value)]);
  },
  "/kv/set-many": (query) => {
    query.bucket().setMany(query.list("keys").map((key) => [key, query.text("value")]));
  },
  "/kv/delete-many": (query) => query.bucket().deleteMany(query.list("keys")),
  "/kv/many": (query) => many(query, (key) => query.bucket().get(key)),
  "/kv/hoard": () => {
    let held = 0;
    for (; held < 100_000; held++) kv.open();
    return held;
  },
};

/** What is of another type than it should be, or a number that the interface does not hold. */
const odd = {
  key: () => cache.get(7),
  value: () => cache.put("k", { a: 1 }, { ttl: 60 }),
  options: () => cache.put("k", "v"),
  ttl: () => cache.put("k", "v", { ttl: "60" }),
  negative: () => cache.put("k", "v", { ttl: -1 }),
  none: () => cache.put("k", "v", { ttl: Number.NaN }),
  // Those that the bindings by themselves would take for 60 s and for 24 days.
  wrapped: () => cache.put("k", "v", { ttl: 2 ** 32 + 60 }),
  large: () => cache.put("k", "v", { ttl: 2 ** 31 + 1 }),
  tags: () => cache.purge("prices"),
  tag: () => cache.purge(["prices", null]),
  pair: () => kv.open().setMany(["k", "v"]),
  cursor: () => kv.open().page(0.5),
  bucket: () => kv.open(null),
};

function put(query, value) {
  const options = { ttl: query.number("ttl", 60), tags: query.list("tags") };
  cache.put(query.text("key"), value, options);
}

function long(query) {
  return new Uint8Array(query.number("bytes", 1 << 20)).fill("v".charCodeAt(0));
}

/** Does it many times, and says how often it went well, and the first error. */
function many(query, act) {
  const bad = [];
  const count = query.number("n", 100);
  for (let n = 0; n < count; n++) {
    try {
      act(String(n));
    } catch (error) {
      bad.push(error);
    }
  }
  return { good: count - bad.length, bad: bad.length, code: bad[0]?.code, message: bad[0]?.message };
}
