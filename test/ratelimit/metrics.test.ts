import { expect, it } from "vitest";
import { createMetrics } from "../../src/infra/metrics.ts";
import type { Standing } from "../../src/ratelimit/counters.ts";
import { createLimitMetrics } from "../../src/ratelimit/metrics.ts";
import { ruleOf } from "./rules.ts";

const standing: Standing = {
  ...{ basis: "shared", limit: 1, shadow: false, waitUs: 0, remaining: 0, overdrawn: 0, resetAt: undefined },
};

it("decisions are counted by rule and outcome, with no more labels than a hundred rules have", async () => {
  const metrics = createMetrics({ defaults: false });
  const limits = createLimitMetrics(metrics, () => 7);
  const decided = (name: string, more: Partial<Standing> = {}, inline = false) =>
    limits.decided([{ rule: ruleOf("fixed_window", 1, { name, inline }), key: "k", cost: 1 }], {
      standings: [{ ...standing, ...more }],
    });
  decided("a");
  decided("a", { waitUs: 5 });
  decided("a", { waitUs: 5, shadow: true });
  decided("a", { basis: "local_share" });
  decided("whatever", {}, true);
  for (let n = 0; n < 200; n++) decided(`rule ${n}`);
  const text = await metrics.text();
  const value = (sample: string) =>
    text
      .split("\n")
      .find((line) => line.startsWith(`${sample} `))
      ?.split(" ")
      .at(-1);
  const decisions = (rule: string, outcome: string) =>
    value(`holdfast_ratelimit_decisions_total{rule="${rule}",outcome="${outcome}"}`);
  expect(decisions("a", "allowed")).toBe("2");
  expect(decisions("a", "denied")).toBe("1");
  expect(decisions("a", "shadow_denied")).toBe("1");
  expect(decisions("(inline)", "allowed")).toBe("1");
  expect(Number(decisions("(other)", "allowed"))).toBeGreaterThan(95);
  expect(value('holdfast_ratelimit_fallbacks_total{fallback="local_share"}')).toBe("1");
  expect(value("holdfast_ratelimit_rules")).toBe("7");
  expect(new Set(text.match(/rule="[^"]*"/g)).size).toBeLessThanOrEqual(102);
});
