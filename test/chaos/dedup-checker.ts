/** From when to when a call was under way, by one clock. */
export interface Span {
  readonly begin: number;
  readonly end: number;
}

interface Call extends Span {
  readonly id: string;
  readonly token: number;
}

/** A caller was told that he is the first. */
export interface First extends Call {
  readonly kind: "first";
  /** Who: the same for all attempts under one request id. */
  readonly caller: string;
  /** When his first attempt began. */
  readonly since: number;
}

/** `token`: whose result it was. */
export interface Duplicate extends Call {
  readonly kind: "duplicate";
  readonly degraded: boolean;
}

export interface Complete extends Call {
  readonly kind: "complete";
  readonly outcome: "completed" | "refused" | "unknown";
}

export interface Release extends Call {
  readonly kind: "release";
  readonly forget: boolean;
  readonly outcome: "released" | "nothing" | "unknown";
}

export type Event = First | Duplicate | Complete | Release;

export const FAULTS = [
  "two are the first",
  "token went back",
  "taken over early",
  "done twice",
  "completed after a takeover",
  "duplicate of nothing",
  "duplicate of what is forgotten",
] as const;
export type Fault = (typeof FAULTS)[number];

export interface Found {
  readonly fault: Fault;
  readonly event: Event;
}

/** Everything in what callers were told that cannot be, if claims are what the contract says. */
export function faultsIn(history: readonly Event[], leaseMs: number): Found[] {
  const byId = Map.groupBy(history, ({ id }) => id);
  return [...sharedTokens(history), ...[...byId.values()].flatMap((events) => faultsOfOne(events, leaseMs))];
}

function sharedTokens(history: readonly Event[]): Found[] {
  const callers = new Map<number, string>();
  return history.flatMap((event): Found[] => {
    if (event.kind !== "first") return [];
    const caller = `${event.id} ${event.caller}`;
    const known = callers.get(event.token) ?? caller;
    callers.set(event.token, known);
    return known === caller ? [] : [{ fault: "two are the first", event }];
  });
}

function faultsOfOne(events: readonly Event[], leaseMs: number): Found[] {
  const firsts = grantsOf(events);
  const completes = events.filter((event) => event.kind === "complete");
  const releases = events.filter((event) => event.kind === "release");
  const mayBeForgotten = (token: number, by: number) =>
    releases.some((one) => one.token === token && one.forget && one.begin < by);
  const mayBeReleased = (token: number, by: number) => releases.some((one) => one.token === token && one.begin < by);
  const isDone = ({ outcome }: Complete) => outcome === "completed";
  const found: Found[] = [];
  const blame = (fault: Fault, event: Event) => found.push({ fault, event });

  firsts.forEach((first, at) => {
    if (firsts.some((other) => other.end < first.since && other.token > first.token)) blame("token went back", first);
    const before = firsts[at - 1];
    if (before === undefined) return;
    const isEarly = first.end < before.since + leaseMs && !mayBeReleased(before.token, first.end);
    if (isEarly) blame("taken over early", first);
  });
  for (const done of completes.filter(isDone)) {
    const next = firsts.find(({ token, since }) => token > done.token && since > done.end);
    if (next !== undefined && !mayBeForgotten(done.token, next.end)) blame("done twice", next);
    if (firsts.some(({ token, end }) => token > done.token && end < done.begin))
      blame("completed after a takeover", done);
  }
  for (const event of events) {
    if (event.kind !== "duplicate") continue;
    const { token, begin, end, degraded } = event;
    if (!completes.some((one) => one.token === token && one.begin < end)) blame("duplicate of nothing", event);
    const isForgotten = releases.some(
      (one) => one.token === token && one.forget && one.outcome === "released" && one.end < begin,
    );
    const isOvertaken = firsts.some((first) => first.token > token && first.end < begin);
    if (!degraded && (isForgotten || isOvertaken)) blame("duplicate of what is forgotten", event);
  }
  return found;
}

/** Each token once, as its caller was told first, in the order of the tokens. */
function grantsOf(events: readonly Event[]): First[] {
  const grants = new Map<number, First>();
  for (const event of events) {
    if (event.kind !== "first") continue;
    const known = grants.get(event.token);
    if (known === undefined || event.end < known.end) grants.set(event.token, event);
  }
  return [...grants.values()].sort((a, b) => a.token - b.token);
}
