import { create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { Fields } from "../../src/infra/fields.ts";
import { createHeartbeat, heartbeatOf } from "../../src/infra/heartbeat.ts";

function durationOf(seconds: number | undefined) {
  if (seconds === undefined) return undefined;
  const whole = Math.trunc(seconds);
  return create(DurationSchema, { seconds: BigInt(whole), nanos: Math.round((seconds - whole) * 1e9) });
}

describe("a heartbeat", () => {
  it("is due a little before its interval is over, counted from what was sent last", () => {
    let now = 5_000;
    const beat = createHeartbeat(1_000, () => now);
    expect(beat.at).toBeGreaterThan(now + 500);
    expect(beat.at).toBeLessThan(now + 1_000);
    const first = beat.at;
    now += 700;
    expect(beat.at).toBe(first);
    beat.sent();
    expect(beat.at).toBe(first + 700);
  });

  it.each([
    [undefined, 15_000],
    [1, 1_000],
    [300, 300_000],
  ])("comes as often as the caller asks: %j s", (seconds, ms) => {
    const fields = new Fields();
    expect(heartbeatOf(fields, "beat", durationOf(seconds))).toBe(ms);
    expect(fields.violations).toEqual([]);
  });

  it.each([0.999, 301, -5])("does not come every %d s", (seconds) => {
    const fields = new Fields();
    heartbeatOf(fields, "beat", durationOf(seconds));
    expect(fields.violations).toMatchObject([{ field: "beat" }]);
  });
});
