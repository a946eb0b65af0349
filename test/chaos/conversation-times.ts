import type { Report } from "./conversation-checker.ts";
import type { Read, Write } from "./conversation-history.ts";

export interface Sighting {
  readonly what: string;
  readonly calledAt: number;
  readonly answeredAt: number;
  readonly low: number;
  readonly high: number;
  /** Whether it must be more than, or no less than, all that was answered before it was called. */
  readonly rule: "more" | "no less" | "none";
}

/** What was called after an answer is not behind it. */
export function checkTimes(
  writes: readonly Write[],
  reads: readonly Read[],
  strict: ReadonlySet<Read>,
  report: Report,
): void {
  const versions: Sighting[] = reads.map((read) => ({
    ...{ what: `read by ${read.by}`, calledAt: read.calledAt, answeredAt: read.answeredAt },
    ...{ low: read.version, high: read.version, rule: strict.has(read) ? "no less" : "none" },
  }));
  const positions: Sighting[] = [];
  for (const { name, calledAt, answer } of writes) {
    if (answer === undefined) continue;
    const { at: answeredAt, version, duplicate } = answer;
    const base = { what: name, calledAt, answeredAt };
    versions.push({ ...base, low: version, high: version, rule: duplicate ? "no less" : "more" });
    const [low, high] = [answer.positions[0], answer.positions.at(-1)];
    if (low !== undefined && high !== undefined) positions.push({ ...base, low, high, rule: "more" });
  }
  sweep(versions, ({ what, low }, floor) => report("version went back", `${what}: ${low} after ${floor}`));
  sweep(positions, ({ what, low }, floor) => report("order not kept", `${what}: at ${low} after ${floor}`));
}

/** Tells of what is behind something that was answered before it was called. */
export function sweep(sightings: readonly Sighting[], onBack: (sighting: Sighting, floor: number) => void): void {
  const byAnswer = sightings.toSorted((one, other) => one.answeredAt - other.answeredAt);
  let answered = 0;
  let floor = 0;
  for (const sighting of sightings.toSorted((one, other) => one.calledAt - other.calledAt)) {
    for (let next = byAnswer[answered]; next && next.answeredAt < sighting.calledAt; next = byAnswer[++answered]) {
      floor = Math.max(floor, next.high);
    }
    const { rule, low } = sighting;
    if ((rule === "more" && low <= floor) || (rule === "no less" && low < floor)) onBack(sighting, floor);
  }
}
