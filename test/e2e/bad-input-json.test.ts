import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { complaints } from "../support/bad-caller.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";

let server: HoldfastProcess;
beforeAll(async () => {
  server = await startHoldfast();
});
afterAll(() => server[Symbol.asyncDispose]());

interface Answer {
  readonly status: number;
  readonly text: string;
  readonly code: string | undefined;
  readonly message: string | undefined;
  /** Of the details: reasons and fields. */
  readonly reasons: readonly string[];
  readonly fields: readonly string[];
}

interface Body {
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly {
    readonly debug?: { readonly reason?: string; readonly fieldViolations?: readonly { readonly field: string }[] };
  }[];
}

async function post(
  rpc: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`${server.httpUrl}/holdfast.v1.${rpc}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  const text = await response.text();
  let json: Body = {};
  try {
    json = JSON.parse(text);
  } catch {
    // Not every refusal is JSON; the test says which must be.
  }
  const debug = json.details?.map((detail) => detail.debug) ?? [];
  return {
    status: response.status,
    text,
    code: json.code,
    message: json.message,
    reasons: debug.flatMap((one) => one?.reason ?? []),
    fields: debug.flatMap((one) => one?.fieldViolations?.map(({ field }) => field) ?? []),
  };
}

const get = "CacheService/Get";
const set = "CacheService/Set";
const set1 = (rest: string) => `{"key":"k","value":{"text":"x"},${rest}}`;

describe("JSON that is no request", () => {
  const cases: readonly [string, string, string | Uint8Array<ArrayBuffer>, RegExp][] = [
    ["nothing at all", get, "", /./],
    ["cut off", get, '{"key":"k', /JSON/i],
    ["not JSON", get, "key=k", /JSON/i],
    ["not UTF-8", get, new Uint8Array([...Buffer.from('{"key":"'), 0xc3, 0x28, ...Buffer.from('"}')]), /./],
    ["a list", get, "[]", /CacheServiceGetRequest/],
    ["null", get, "null", /CacheServiceGetRequest/],
    ["100,000 lists in each other", get, "[".repeat(100_000), /./],
    ["a number for a text", get, '{"key":7}', /key/],
    ["a text for a flag", get, '{"key":"k","bypassL1":"yes"}', /bypass_l1/],
    ["half a surrogate pair", get, String.raw`{"key":"\ud800"}`, /key/],
    ["a duration without its s", get, '{"key":"k","leaseTtl":"5"}', /./],
    ["a duration beyond all", get, '{"key":"k","leaseTtl":"999999999999999s"}', /./],
    ["bytes that are not base64", set, '{"key":"k","value":{"raw":"%%%"}}', /raw/],
    ["two kinds of a value", set, '{"key":"k","value":{"raw":"AA==","text":"x"}}', /kind|oneof/],
    ["two kinds of an expiry", set, set1('"expiry":{"ttl":"5s","never":true}'), /kind|oneof/],
    ["an object for a list", set, set1('"tags":{}'), /tags/],
    ["null within a list", set, set1('"tags":[null]'), /tags/],
    [
      "a version out of range",
      "CacheService/CompareAndSet",
      set1('"expectedVersion":"18446744073709551616"'),
      /expected_version/,
    ],
    ["a version below zero", "CacheService/CompareAndSet", set1('"expectedVersion":"-1"'), /expected_version/],
    ["a fraction of a version", "CacheService/CompareAndSet", set1('"expectedVersion":1.5'), /expected_version/],
    ["a delta out of range", "CacheService/Increment", '{"key":"k","delta":"9223372036854775808"}', /delta/],
    ["a page size out of range", "CacheService/ListKeys", '{"pageSize":2147483648}', /page_size/],
  ];
  it.each(cases)("is refused with a message that says what is wrong: %s", async (_, rpc, body, message) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument", reasons: ["MALFORMED_REQUEST"] });
    expect(answer.message).toMatch(message);
    expect(answer.message).not.toMatch(/at .*\.(js|ts)/);
  });
});

describe("JSON with typing errors", () => {
  const getMany = "CacheService/GetMany";
  const setMany = "CacheService/SetMany";
  it.each([
    ["a field of another message", set, set1('"ttl":"5s"'), "ttl", /did you mean expiry\.ttl\?/],
    ["a field misspelt", get, '{"kee":"k"}', "kee", /did you mean key\?/],
    ["a field of nothing", getMany, '{"keys":["k"],"zzzzzzzz":1}', "zzzzzzzz", /there are .*keys/],
    ["a field inside another", set, '{"key":"k","value":{"txt":"x"}}', "value.txt", /did you mean text\?/],
    [
      "a field inside a list",
      setMany,
      '{"items":[{"key":"k","value":{"text":"x"},"xyz":1}]}',
      "items[0].xyz",
      /not a field/,
    ],
    ["minutes", set, set1('"expiry":{"ttl":"5m"}'), "expiry.ttl", /"5m".*"300s"/],
    ["a bare number", set, set1('"expiry":{"ttl":90}'), "expiry.ttl", /90.*"90s"/],
    ["milliseconds", get, '{"key":"k","leaseTtl":"1500ms"}', "lease_ttl", /"1500ms".*"1\.5s"/],
    ["words", get, '{"key":"k","lease_ttl":"a while"}', "lease_ttl", /"a while".*such as "300s"/],
  ])("names the field and what is wanted: %s", async (_, rpc, body, field, message) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({
      status: 400,
      code: "invalid_argument",
      reasons: expect.arrayContaining(["MALFORMED_REQUEST"]),
    });
    expect(answer.fields).toEqual([field]);
    expect(answer.message).toMatch(message);
  });

  it("names every one of them, and stores nothing", async () => {
    const key = "typing-errors";
    const answer = await post(set, `{"key":"${key}","value":{"text":"x"},"ttl":"5s","expiry":{"ttl":"5m"}}`);
    expect(answer.fields).toEqual(["ttl", "expiry.ttl"]);
    expect((await post(get, `{"key":"${key}"}`)).text).toContain("MISS");
  });

  it("takes names of either spelling, and nulls for what is not set", async () => {
    const answer = await post(
      set,
      '{"key":"spelt","value":{"text":"x","content_type":"text/plain"},"leaseToken":null}',
    );
    expect(answer.status).toBe(200);
  });
});

describe("JSON of bad values", () => {
  it.each([
    ["an empty key", get, '{"key":""}', "key"],
    ["a key too long", get, `{"key":"${"k".repeat(1_025)}"}`, "key"],
    ["a NUL", get, String.raw`{"key":"\u0000"}`, "key"],
    ["a namespace with a slash", get, '{"key":"k","namespace":"a/b"}', "namespace"],
    ["no value", set, '{"key":"k"}', "value"],
    ["a value of null", set, '{"key":"k","value":null}', "value"],
    ["5 MiB", set, `{"key":"k","value":{"text":"${"x".repeat(5 << 20)}"}}`, "value"],
    ["a negative ttl", set, set1('"expiry":{"ttl":"-5s"}'), "expiry.ttl"],
    ["a ttl of eleven years", set, set1('"expiry":{"ttl":"346896000s"}'), "expiry.ttl"],
    ["never: false", set, set1('"expiry":{"never":false}'), "expiry.never"],
    ["an empty tag", set, set1('"tags":["a",""]'), "tags[1]"],
    ["a lease of nonsense", set, set1('"leaseToken":"nonsense"'), "lease_token"],
    ["no keys", "CacheService/GetMany", "{}", "keys"],
    ["a page token of nonsense", "CacheService/ListKeys", '{"pageToken":"nonsense"}', "page_token"],
    ["a negative page size", "CacheService/ListKeys", '{"pageSize":-1}', "page_size"],
  ])("names the field: %s", async (_, rpc, body, field) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({
      status: 400,
      code: "invalid_argument",
      reasons: expect.arrayContaining(["FIELD_INVALID"]),
      fields: [field],
    });
    expect(answer.message).toContain(field);
  });

  it("says UNIMPLEMENTED to fencing, and how long a message may be", async () => {
    expect(await post(set, set1('"fencing":{"lock":"l","token":"1"}'))).toMatchObject({
      status: 501,
      code: "unimplemented",
      reasons: ["FENCING_UNIMPLEMENTED"],
    });
    const huge = `{"key":"k","value":{"text":"${"x".repeat(18 << 20)}"}}`;
    expect(await post(set, huge)).toMatchObject({
      status: 429,
      code: "resource_exhausted",
      reasons: ["MESSAGE_TOO_LARGE"],
    });
  });
});

describe("a request that is none of ours", () => {
  const url = (path: string) => `${server.httpUrl}${path}`;
  it.each([
    ["an unknown RPC", "/holdfast.v1.CacheService/Nope", {}, 404],
    ["an unknown service", "/holdfast.v1.NopeService/Get", {}, 404],
    ["a path upwards", "/holdfast.v1.CacheService/../../etc/passwd", {}, 404],
    ["GET where it must be POST", `/holdfast.v1.${set}`, { method: "GET" }, 405],
    ["DELETE", `/holdfast.v1.${get}`, { method: "DELETE" }, 405],
    ["a form", `/holdfast.v1.${get}`, { headers: { "content-type": "application/x-www-form-urlencoded" } }, 415],
    ["no content type", `/holdfast.v1.${get}`, { body: new Uint8Array([1]) }, 415],
  ])("is answered with a status that says so: %s", async (_, path, init, status) => {
    const response = await fetch(url(path), { method: "POST", ...init });
    expect(response.status).toBe(status);
    if (path.includes("..")) return;
    expect(await response.json()).toMatchObject({ code: expect.any(String), message: expect.any(String) });
  });

  it("is told what to send", async () => {
    const told = async (rpc: string, init: RequestInit) => {
      const body: Body = JSON.parse(await (await fetch(url(`/holdfast.v1.${rpc}`), init)).text());
      return body.message;
    };
    const json = "send POST with content-type: application/json";
    const form = { method: "POST", body: new URLSearchParams({ key: "k" }) };
    expect(await told(get, form)).toContain(`the content-type is "application/x-www-form-urlencoded`);
    expect(await told(get, form)).toContain(json);
    expect(await told(get, { method: "POST", body: new Uint8Array([1]) })).toContain(
      `there is no content-type: ${json}`,
    );
    expect(await told(get, {})).toContain(json);
    expect(await told(set, {})).toContain(json);
    expect(await told("CacheService/Watch", form)).toContain("application/connect+json");
    expect(await told("CacheService/Gett", form)).toContain("did you mean Get?");
  });

  it("is gzip that grows beyond the limit", async () => {
    const bomb = new Uint8Array(gzipSync(Buffer.alloc(64 << 20, " ")));
    expect(await post(get, bomb, { "content-encoding": "gzip" })).toMatchObject({ status: 429 });
  });

  it("says gzip where it is not", async () => {
    const answer = await post(get, "not gzip", { "content-encoding": "gzip" });
    expect(answer.status).toBe(400);
    expect(answer.code).toBe("invalid_argument");
  });
});

it("none of it is an error of the server, which serves on", async () => {
  expect(await post(set, '{"key":"last","value":{"text":"x"}}')).toMatchObject({ status: 200 });
  expect(complaints(server.output())).toEqual([]);
});
