import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseRedisUrl } from "../../src/infra/redis.ts";

describe("a Redis URL", () => {
  it.each([
    ["redis://localhost", { mode: "single", nodes: [{ host: "localhost", port: 6379 }] }],
    [
      "redis://u:p@h:7000/3",
      { mode: "single", nodes: [{ host: "h", port: 7000 }], username: "u", password: "p", db: 3 },
    ],
    ["redis://:p%40ss%2F@h/", { mode: "single", nodes: [{ host: "h", port: 6379 }], password: "p@ss/" }],
    ["rediss://[::1]:6380", { mode: "single", nodes: [{ host: "::1", port: 6380 }], tls: {} }],
    [
      "redis://a:1,b:2",
      {
        mode: "cluster",
        nodes: [
          { host: "a", port: 1 },
          { host: "b", port: 2 },
        ],
      },
    ],
    ["redis-cluster://a", { mode: "cluster", nodes: [{ host: "a", port: 6379 }] }],
    [
      "redis-sentinel://:p@s1,s2:26380/main/2?sentinelPassword=q%26",
      {
        mode: "sentinel",
        nodes: [
          { host: "s1", port: 26379 },
          { host: "s2", port: 26380 },
        ],
        password: "p",
        sentinelName: "main",
        sentinelPassword: "q&",
        db: 2,
      },
    ],
  ])("is read: %s", (url, options) => {
    expect(parseRedisUrl(url)).toEqual(options);
  });

  it.each([
    ["", "redis://"],
    ["localhost:6379", "redis://"],
    ["http://localhost", "redis://"],
    ["redis://", "host name"],
    ["redis://:6379", "host name"],
    ["redis://h:0", "port"],
    ["redis://h:65536", "port"],
    ["redis://h:x", "host:port"],
    ["redis://h/x", "database number"],
    ["redis://h/1/2", "database number"],
    ["redis-cluster://h/1", "no database number"],
    ["redis-sentinel://h", "/name"],
    ["redis-sentinel://h/a%20b", "/name"],
    ["redis://u:%zz@h", "percent-encoded"],
  ])("is refused with a reason: %s", (url, reason) => {
    expect(parseRedisUrl(url)).toContain(reason);
  });

  it("gives back any password that is encoded, and repeats none that is not", () => {
    const property = fc.property(fc.string({ unit: "grapheme", minLength: 6 }), (password) => {
      expect(parseRedisUrl(`redis://u:${encodeURIComponent(password)}@h`)).toMatchObject({ password });
      const raw = parseRedisUrl(`redis://u:${password}@h:port`);
      if (typeof raw === "string") expect(raw).not.toContain(password);
    });
    fc.assert(property);
  });
});
