// What componentize-js makes of the interfaces in `wasm-handlers/wit`, for editors and `tsc --checkJs`.

declare module "verge:edge/cache@0.1.0" {
  export function get(key: string): Uint8Array | undefined;
  export function put(key: string, value: Uint8Array, options: { ttl: number; tags: string[] }): void;
  export function purge(tags: string[]): bigint;
}

declare module "verge:edge/client@0.1.0" {
  export function get(): import("./client.js").Visitor;
}

declare module "verge:edge/secrets@0.1.0" {
  export class Secret {
    reveal(): string;
  }
  export function get(name: string): Secret | undefined;
}

declare module "wasi:config/store@0.2.0-rc.1" {
  export function get(key: string): string | undefined;
  export function getAll(): [string, string][];
}

declare module "wasi:logging/logging@0.1.0-draft" {
  export function log(level: import("./log.js").Level, context: string, message: string): void;
}

declare module "wasi:keyvalue/store@0.2.0-draft" {
  export class Bucket {
    get(key: string): Uint8Array | undefined;
    set(key: string, value: Uint8Array): void;
    delete(key: string): void;
    exists(key: string): boolean;
    listKeys(cursor: bigint | undefined): { keys: string[]; cursor?: bigint };
  }
  export function open(identifier: string): Bucket;
}

declare module "wasi:keyvalue/batch@0.2.0-draft" {
  import { Bucket } from "wasi:keyvalue/store@0.2.0-draft";
  export function getMany(bucket: Bucket, keys: string[]): ([string, Uint8Array] | undefined)[];
  export function setMany(bucket: Bucket, entries: [string, Uint8Array][]): void;
  export function deleteMany(bucket: Bucket, keys: string[]): void;
}
