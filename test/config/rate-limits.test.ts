import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { ConfigError } from "../../src/config/mistakes.ts";
import { resolveConfig } from "../../src/config.ts";

const read = (rules: string) =>
  resolveConfig({}, { name: "holdfast.yaml", content: parse(`ratelimit:\n  rules:\n${rules}`) }).config.ratelimit.rules;

function mistakesOf(rules: string): string[] {
  try {
    read(rules);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.mistakes.map(({ where, what }) => `${where.replace("holdfast.yaml: ratelimit.rules.", "")} ${what}`);
  }
}

describe("rules of rate limits in the file", () => {
  it("have defaults for what they leave out", () => {
    expect(read("    a: { algorithm: token_bucket, limit: 10, period: 1m }\n")).toEqual([
      {
        ...{ name: "a", algorithm: "token_bucket", limit: 10, periodUs: 60_000_000, burst: 10 },
        ...{ fallback: "local_share", shadow: false, inline: false },
      },
    ]);
    const [bucket, slots] = read(
      "    b: { algorithm: token_bucket, limit: 10, period: 1d, burst: 3, fallback: closed, shadow: true }\n" +
        "    c: { algorithm: concurrency, limit: 2, fallback: open }\n",
    );
    expect(bucket).toMatchObject({ burst: 3, fallback: "closed", shadow: true });
    expect(slots).toMatchObject({ algorithm: "concurrency", limit: 2, burst: 2, periodUs: 0, fallback: "open" });
  });

  it("are told all their mistakes at once, each with its place", () => {
    const found = mistakesOf(`
    none: {}
    bad: { algorithm: leaky, limit: 0, period: 60, fallback: maybe, shadow: 1 }
    long: { algorithm: fixed_window, limit: 1000000000001, period: 367d }
    jobs: { algorithm: concurrency, limit: 1, period: 1m, burst: 2 }
    window: { algorithm: sliding_window, limit: 1, period: 1m, burst: 2 }
    "no name": { algorithm: fixed_window, limit: 1, period: 1m }
    typo: { algorithm: fixed_window, limits: 1, period: 1m, limit: 1 }
`);
    const begin = (place: string, what: string) => expect.stringMatching(new RegExp(`^${place} ${what}`));
    expect(found.toSorted()).toEqual([
      begin("bad.algorithm", 'is "leaky", wanted one of fixed_window'),
      begin("bad.fallback", 'is "maybe", wanted one of local_share'),
      begin("bad.limit", "is 0, wanted"),
      begin("bad.period", "is 60, wanted a duration from 1ms to 366d with its unit"),
      begin("bad.shadow", "is 1, wanted true or false"),
      begin("jobs.burst", "is set, and has no meaning for a rule of concurrency"),
      begin("jobs.period", "is set, and has no meaning for a rule of concurrency"),
      begin("long.limit", "is 1000000000001, wanted"),
      begin("long.period", 'is "367d", wanted'),
      begin("no name", "is not the name of a rule"),
      begin("none.algorithm", "is not set, wanted"),
      begin("none.limit", "is not set, wanted"),
      begin("typo.limits", "is not a setting"),
      begin("window.burst", "is set, and has no meaning for a rule of sliding_window"),
    ]);
  });
});
