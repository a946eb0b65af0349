import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { complaints } from "../support/bad-caller.ts";
import { type JsonRefusal, postJson } from "../support/bad-json.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";

let server: HoldfastProcess;
beforeAll(async () => {
  server = await startHoldfast();
});
afterAll(() => server[Symbol.asyncDispose]());

const post = (rpc: string, body: string | Uint8Array<ArrayBuffer>, headers?: Record<string, string>) =>
  postJson(server.httpUrl, rpc, body, headers);

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

  it("says which token of a lock it does not know, and how long a message may be", async () => {
    expect(await post(set, set1('"fencing":{"lock":"l","token":"1"}'))).toMatchObject({
      status: 400,
      code: "failed_precondition",
      reasons: ["FENCING_TOKEN_UNKNOWN"],
    });
    const huge = `{"key":"k","value":{"text":"${"x".repeat(18 << 20)}"}}`;
    expect(await post(set, huge)).toMatchObject({
      status: 429,
      code: "resource_exhausted",
      reasons: ["REQUEST_TOO_LARGE"],
    });
  });
});

describe("JSON of audit records", () => {
  const append = "AuditService/Append";
  const list = "AuditService/List";
  const entryWith = (rest: string) => `{"records":[{"entry":{"actor":"a","action":"b",${rest}}}]}`;
  const lists = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
  const attribute = (value: string) => entryWith(`"attributes":{"k":${value}}`);
  const inEntry = "records[0].entry";

  const malformed: readonly [string, string, string, RegExp][] = [
    ["attributes of a list", append, entryWith('"attributes":[]'), /attributes|Struct/],
    ["attributes of a text", append, entryWith('"attributes":"x"'), /attributes|Struct/],
    ["a list for a record", append, '{"records":[[]]}', /AuditAppend/],
    ["null for a record", append, '{"records":[null]}', /records/],
    ["an outcome that is none", append, entryWith('"outcome":"AUDIT_OUTCOME_MAYBE"'), /AuditOutcome/],
    ["a sequence of 2^64", append, '{"producer":"p","records":[{"sequence":"18446744073709551616"}]}', /sequence/],
    ["a sequence below zero", append, '{"producer":"p","records":[{"sequence":-1}]}', /sequence/],
    ["a fraction of a sequence", append, '{"producer":"p","records":[{"sequence":1.5}]}', /sequence/],
    ["millions of records", append, `{"records":[${"{},".repeat(2_000_000)}{}]}`, /500000/],
    ["millions of values", append, attribute(`[${"0,".repeat(2_000_000)}0]`), /500000/],
    ["a text of half a surrogate pair", append, entryWith(String.raw`"service":"\ud800"`), /service/],
  ];
  it.each(malformed)("is refused with a message that says what is wrong: %s", async (_, rpc, body, message) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
    expect(answer.reasons).toContain("MALFORMED_REQUEST");
    expect(answer.message).toMatch(message);
    expect(answer.message).not.toMatch(/at .*\.(js|ts)/);
  });

  it.each([
    ["an unknown field of an entry", entryWith('"actr":"x"'), `${inEntry}.actr`, /did you mean actor\?/],
    ["an unknown field of a context", entryWith('"context":{"ip":"x"}'), `${inEntry}.context.ip`, /not a field/],
    ["__proto__ where a field belongs", entryWith('"__proto__":{"actor":"x"}'), `${inEntry}.__proto__`, /not a field/],
    ["__proto__ of a request", '{"__proto__":{"records":[]}}', "__proto__", /not a field/],
    ["a time in words", entryWith('"occurTime":"yesterday"'), `${inEntry}.occur_time`, /"yesterday".*such as/],
  ])("names the field and what is wanted: %s", async (_, body, field, message) => {
    const answer = await post(append, body);
    expect(answer).toMatchObject({
      status: 400,
      fields: [field],
      reasons: expect.arrayContaining(["MALFORMED_REQUEST"]),
    });
    expect(answer.message).toMatch(message);
  });

  const sequenced = (sequence: string) =>
    `{"producer":"p","records":[{"sequence":${sequence},"entry":{"actor":"a","action":"b"}}]}`;
  it.each([
    ["2^53 + 1 as a number", append, sequenced("9007199254740993"), "records[0].sequence"],
    ["2^53 + 1 as a text", append, sequenced('"9007199254740993"'), "records[0].sequence"],
    ["a number beyond all doubles", append, attribute("1e400"), `${inEntry}.attributes`],
    ["31 levels", append, attribute(lists(30)), `${inEntry}.attributes.k${"[0]".repeat(29)}`],
    ["100,001 levels", append, attribute(lists(100_000)), `${inEntry}.attributes.k${"[0]".repeat(29)}`],
    ["4,097 values", append, attribute(`[${"0,".repeat(4_095)}0]`), `${inEntry}.attributes`],
    ["the last second of 1699", append, entryWith('"occurTime":"1699-12-31T23:59:59Z"'), `${inEntry}.occur_time`],
    ["the year 2200", append, entryWith('"occurTime":"2200-01-01T00:00:00Z"'), `${inEntry}.occur_time`],
    ["an approval", append, entryWith('"status":"AUDIT_STATUS_APPROVED"'), `${inEntry}.status`],
    ["half of a resource", append, entryWith('"resource":{"type":"t"}'), `${inEntry}.resource.id`],
    ["no entry", append, '{"records":[{}]}', `${inEntry}`],
    ["half a surrogate pair in a value", append, attribute(String.raw`"\ud800"`), `${inEntry}.attributes`],
    [
      "half a surrogate pair in a key",
      append,
      entryWith(String.raw`"attributes":{"\udc00":1}`),
      `${inEntry}.attributes`,
    ],
    ["a value of no kind to match", list, '{"filter":{"attributes":[{"pointer":"/a"}]}}', "filter.attributes[0].value"],
    [
      "an object to match",
      list,
      '{"filter":{"attributes":[{"pointer":"/a","value":{}}]}}',
      "filter.attributes[0].value",
    ],
    ["a status of none", list, '{"filter":{"statuses":["AUDIT_STATUS_UNSPECIFIED"]}}', "filter.statuses[0]"],
    ["no id", "AuditService/Get", "{}", "id"],
    ["no check", "AuditService/Verify", "{}", "check"],
  ])("names the field of a bad value: %s", async (_, rpc, body, field) => {
    const answer = await post(rpc, body);
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument", fields: [field] });
    expect(answer.reasons).toContain("FIELD_INVALID");
  });

  it.each([
    ["names that objects have", '{"__proto__":{"x":1},"constructor":"c","toString":null,"":[],"a":{"__proto__":2}}'],
    ["numbers of every size", "[0,-1,1.5,9007199254740991,1e308,5e-324,0.1]"],
    ["a null, a truth and a lie", "[null,true,false]"],
    ["characters of every kind", JSON.stringify('\0\u2028\u{1f600}\ufeff\ufffd"\\/')],
  ])("keeps attributes as they are, or refuses them: %s", async (_, value) => {
    const answer = await post(append, attribute(value));
    if (answer.status === 400) {
      expect(answer.fields).toEqual([`${inEntry}.attributes`]);
      return;
    }
    expect(answer.status).toBe(200);
    const { acks } = JSON.parse(answer.text);
    const read = await post("AuditService/Get", JSON.stringify({ id: acks[0].id }));
    expect(JSON.stringify(JSON.parse(read.text).record.entry.attributes.k)).toBe(JSON.stringify(JSON.parse(value)));
  });

  it("says RECORD_TOO_LARGE of a record over its limit, and keeps one of just that", async () => {
    expect(await post(append, attribute(`"${"x".repeat(256 * 1024)}"`))).toMatchObject({
      status: 429,
      code: "resource_exhausted",
      reasons: ["RECORD_TOO_LARGE"],
    });
    expect(await post(append, attribute(`"${"x".repeat(255 * 1024)}"`))).toMatchObject({ status: 200 });
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
      const { code, message, details }: JsonRefusal = JSON.parse(
        await (await fetch(url(`/holdfast.v1.${rpc}`), init)).text(),
      );
      const reason = rpc.endsWith("Gett") ? "RPC_NOT_IMPLEMENTED" : "PROTOCOL_NOT_SUPPORTED";
      const type = "google.rpc.ErrorInfo";
      expect({ code, details }).toMatchObject({
        code: "unimplemented",
        details: [{ type, debug: { reason, domain: "holdfast" } }],
      });
      return message;
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
