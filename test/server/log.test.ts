import { describe, expect, it } from "vitest";
import { createLog, redact } from "../../src/infra/log.ts";
import { createMetrics } from "../../src/infra/metrics.ts";

describe("a log", () => {
  function written(options: { readonly pretty?: boolean } = {}) {
    const lines: string[] = [];
    const log = createLog({ level: "info", destination: { write: (line) => lines.push(line) }, ...options });
    return { lines, log };
  }

  it("is one JSON object a line, with its level and time", () => {
    const { lines, log } = written();
    log.child({ component: "redis" }).warn({ attempt: 3 }, "not reachable");
    log.debug({}, "not written");
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^\{[^\n]*\}\n$/);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      level: "warn",
      component: "redis",
      attempt: 3,
      msg: "not reachable",
    });
  });

  it("keeps an error's stack and causes", () => {
    const { lines, log } = written();
    log.error({ err: new Error("outer", { cause: new TypeError("inner") }) }, "failed");
    expect(JSON.parse(lines[0] ?? "").err).toMatchObject({
      type: "Error",
      message: "outer",
      stack: expect.stringContaining("log.test"),
      cause: { type: "TypeError", message: "inner" },
    });
  });

  it.each([
    ["an API key", "key hf_abc123_c2VjcmV0-_x was sent", "key hf_abc123_*** was sent"],
    ["a password in a URL", "redis://user:pa55w0rd@host:6379/0", "redis://user:***@host:6379/0"],
    ["a password without a user", "redis://:pa55w0rd@host", "redis://:***@host"],
    ["another bearer token", "Authorization: Bearer abc.def", "Authorization: Bearer ***"],
    ["a password in a connection string", "host=db password=pa55w0rd user=x", "host=db password=*** user=x"],
  ])("masks %s", (_, text, masked) => {
    expect(redact(text)).toBe(masked);
    const { lines, log } = written();
    log.info({ nested: { text }, err: new Error(text) }, text);
    expect(lines.join("")).not.toMatch(/pa55w0rd|c2VjcmV0|abc\.def/);
  });

  it("masks fields that are secret by their name", () => {
    const { lines, log } = written();
    log.info({ headers: { authorization: "hunter2", host: "x" }, password: "hunter2" }, "request");
    expect(lines[0]).not.toContain("hunter2");
    expect(lines[0]).toContain('"host":"x"');
  });
});

describe("metrics", () => {
  it("show counters, gauges and histograms as Prometheus text", async () => {
    const metrics = createMetrics({ defaults: false });
    const calls = metrics.counter("calls_total", "Calls.", ["code"]);
    calls.with({ code: "OK" }).inc();
    calls.with({ code: "OK" }).inc(2);
    const open = metrics.gauge("open", "Open.").with({});
    open.set(5);
    open.dec();
    const seconds = metrics.histogram("seconds", "Seconds.", ["method"], [0.1, 1]).with({ method: "Get" });
    for (const value of [0.05, 0.1, 0.5, 7]) seconds.observe(value);
    const text = await metrics.text();
    expect(text).toContain('calls_total{code="OK"} 3');
    expect(text).toContain("open 4");
    expect(text).toContain('seconds_bucket{le="0.1",method="Get"} 2');
    expect(text).toContain('seconds_bucket{le="1",method="Get"} 3');
    expect(text).toContain('seconds_bucket{le="+Inf",method="Get"} 4');
    expect(text).toContain('seconds_count{method="Get"} 4');
    expect(text).toContain('seconds_sum{method="Get"} 7.65');
    expect(await metrics.text()).toBe(text);
  });

  it("refuse a name that is taken", () => {
    const metrics = createMetrics({ defaults: false });
    metrics.counter("calls_total", "Calls.");
    expect(() => metrics.counter("calls_total", "Calls.")).toThrow("calls_total");
  });

  it("sample what is cheaper to read than to keep, before each scrape", async () => {
    const metrics = createMetrics({ defaults: false });
    const size = metrics.gauge("size", "Size.").with({});
    let now = 1;
    metrics.beforeScrape(() => size.set(now));
    expect(await metrics.text()).toContain("size 1");
    now = 2;
    expect(await metrics.text()).toContain("size 2");
  });

  it("show the process, its event loop and its memory", async () => {
    expect(await createMetrics().text()).toMatch(
      /nodejs_eventloop_lag_seconds[\s\S]*process_resident_memory_bytes|process_resident/,
    );
  });
});
