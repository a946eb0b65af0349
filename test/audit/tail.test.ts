import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { filterOf, serializeFilter } from "../../src/audit/search/filter.ts";
import {
  AuditServiceTailRequestSchema,
  type AuditServiceTailResponse,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../src/infra/failure.ts";
import { Fields } from "../../src/infra/fields.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { writeToken } from "../../src/infra/token.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { KINDS } from "./archives.ts";
import { messagesOf, testCall } from "./calls.ts";
import { type GroupInstance, type GroupInstances, openGroups } from "./group-instances.ts";

type Request = MessageInitShape<typeof AuditServiceTailRequestSchema>;

/** Whoever tails: reads as long as nobody pauses it. */
class TestTail {
  readonly sequences: number[] = [];
  readonly batches: number[] = [];
  readonly events: string[] = [];
  /** The last token seen, and those that came with heartbeats. */
  token = "";
  readonly heartbeats: string[] = [];
  ended: unknown;
  readonly #abort = new AbortController();
  readonly #replies: AsyncIterator<AuditServiceTailResponse>;

  constructor(instance: GroupInstance, request: Request) {
    const call = testCall("tester", this.#abort.signal);
    const whole = create(AuditServiceTailRequestSchema, request);
    this.#replies = messagesOf(instance.rpcs.tail(whole, call));
  }

  /** Takes one reply; false when there are no more. */
  async next(): Promise<boolean> {
    try {
      const { done, value } = await this.#replies.next();
      if (done === true) return false;
      this.#keep(value);
      return true;
    } catch (error) {
      this.ended = error;
      return false;
    }
  }

  /** Reads on and on in the background. */
  run(): this {
    void (async () => {
      while (await this.next());
    })();
    return this;
  }

  async has(count: number): Promise<number[]> {
    await until(() => this.ended !== undefined || this.sequences.length >= count, { what: `${count} records` });
    return this.sequences;
  }

  end(reason = new UnavailableError("SERVER_DRAINING", "shutting down")): void {
    this.#abort.abort(reason);
  }

  #keep({ event }: AuditServiceTailResponse): void {
    if (event.case === undefined) throw new Error("a reply without an event");
    this.events.push(event.case);
    this.token = event.value.resumeToken;
    if (event.case === "heartbeat") this.heartbeats.push(this.token);
    if (event.case !== "records") return;
    this.batches.push(event.value.records.length);
    this.sequences.push(...event.value.records.map(({ sequence }) => Number(sequence)));
  }
}

describe.each(KINDS)("a tail over %s", (kind) => {
  let open: GroupInstances;
  let base = 0;
  beforeAll(async () => {
    open = await openGroups(kind);
  });
  afterAll(() => open[Symbol.asyncDispose]());
  beforeEach(async () => {
    base = await open.first.archive.size();
  });

  async function tail(request: Request = {}, instance = open.first): Promise<TestTail> {
    const opened = new TestTail(instance, request);
    onTestFinished(() => opened.end());
    await opened.next();
    return opened;
  }

  const own = (...sequences: number[]) => sequences.map((sequence) => base + sequence);
  const retire = (first: number, last: number) =>
    open.first.database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index BETWEEN $1 AND $2", [
      base + first - 1,
      base + last - 1,
    ]);

  it("tells of what is appended after it was opened, on any instance, in the order of the log", async () => {
    await open.append(2);
    const tails = [await tail(), await tail({}, open.second)].map((one) => one.run());
    await open.append(3);
    await open.append(2);
    for (const one of tails) {
      expect(await one.has(5)).toEqual(own(3, 4, 5, 6, 7));
      expect(one.events[0]).toBe("opened");
    }
  });

  it("finds by itself what nobody announced", async () => {
    const deaf = open.instance(open.second.database, false);
    const one = (await tail({}, deaf)).run();
    await open.append(1);
    expect(await one.has(1)).toEqual(own(1));
  });

  it("does not tell of what was acknowledged before it was opened, even if it is archived later", async () => {
    const slow = open.instance(open.first.database, true, () => open.append(2));
    const one = (await tail({}, slow)).run();
    await open.append(1);
    expect(await one.has(1)).toEqual(own(3));
  });

  it("tells of what matches the filter as it was appended", async () => {
    const one = (await tail({ filter: { actors: ["ada"], statuses: [AuditStatus.PENDING] } })).run();
    await open.append(1, { actor: "ada" });
    await open.append(1, { actor: "bob", status: AuditStatus.PENDING });
    await open.append(2, { actor: "ada", status: AuditStatus.PENDING });
    expect(await one.has(2)).toEqual(own(3, 4));
  });

  it("goes on after the last token, whatever was appended meanwhile", async () => {
    const first = (await tail()).run();
    await open.append(2);
    await first.has(2);
    first.end();
    await until(() => first.ended !== undefined, { what: "the end" });
    expect(first.ended).toMatchObject({ reason: "SERVER_DRAINING" });
    await open.append(3);
    const second = (await tail({ resumeToken: first.token }, open.second)).run();
    expect(await second.has(3)).toEqual(own(3, 4, 5));
  });

  it("tells of the place reached in heartbeats, even when nothing matched", async () => {
    const filter = { actors: ["nobody"] };
    const one = await tail({ filter, heartbeatInterval: { seconds: 1n } });
    const { token } = one;
    one.run();
    await open.append(3);
    await until(() => one.heartbeats.some((place) => place !== token), { what: "a heartbeat from further on" });
    // From there on those three are not looked at again: they may go.
    const place = one.token;
    await retire(1, 3);
    const again = (await tail({ filter, resumeToken: place })).run();
    await open.append(1, { actor: "nobody" });
    expect(await again.has(1)).toEqual(own(4));
  });

  it("waits for a slow reader, who misses nothing", async () => {
    const one = await tail();
    for (let more = 0; more < 3; more++) await open.append(1_000);
    while (one.sequences.length < 3_000) await one.next();
    expect(one.sequences).toEqual(Array.from({ length: 3_000 }, (_, at) => base + at + 1));
    expect(Math.max(...one.batches)).toBeLessThanOrEqual(1_000);
    expect(one.events).not.toContain("discontinuity");
  });

  it("sends large records a few at a time", async () => {
    const one = await tail();
    await open.append(12, { attributes: { body: "x".repeat(250_000) } });
    while (one.sequences.length < 12) await one.next();
    expect(Math.max(...one.batches)).toBe(4);
  });

  it("does not go on from where records are no longer kept", async () => {
    const { token } = await tail();
    await open.append(3);
    await retire(1, 2);
    const late = await tail({ resumeToken: token });
    await late.next();
    expect(late.ended).toMatchObject({ kind: "out_of_range", reason: "RESUME_TOO_OLD" });
  });

  it("tells of a gap when retention was faster than its reader", async () => {
    const one = await tail();
    await open.append(3);
    await retire(1, 2);
    while (one.sequences.length < 1) await one.next();
    await one.next();
    expect(one.sequences).toEqual(own(3));
    expect(one.events).toContain("discontinuity");
  });

  it("refuses tokens that are of another filter, changed, or of another log", async () => {
    const { token } = await tail({ filter: { actors: ["ada"] } });
    const refused = { kind: "invalid", violations: [{ field: "resume_token" }] };
    expect((await tail({ resumeToken: token })).ended).toMatchObject(refused);
    expect((await tail({ resumeToken: "nonsense" })).ended).toMatchObject(refused);
    const before = writeToken(`tail ${serializeFilter(filterOf(new Fields(), "filter", undefined))}`, [-1]);
    expect((await tail({ resumeToken: before })).ended).toMatchObject(refused);
    await using empty = await openGroups("sqlite");
    await open.append(1);
    const { token: ahead } = await tail();
    expect((await tail({ resumeToken: ahead }, empty.first)).ended).toMatchObject(refused);
    const wrong = await tail({ filter: { resourceId: "1" }, heartbeatInterval: { nanos: 1 } });
    expect(wrong.ended).toMatchObject({
      violations: [{ field: "filter.resource_type" }, { field: "heartbeat_interval" }],
    });
  });
});

describe("a tail whose SQL goes away", () => {
  it("stays open, with heartbeats, and goes on where it was", async () => {
    await using open = await openGroups("postgres");
    const url = new URL(open.where);
    await using proxy = await startTcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const database = openPostgres({ url: url.href, poolSize: 4, statementTimeoutMs: 2_000, connectTimeoutMs: 1_000 });
    onTestFinished(() => database.close());
    const one = new TestTail(open.instance(database), { heartbeatInterval: { seconds: 1n } });
    await one.next();
    one.run();
    await open.append(2);
    await one.has(2);
    proxy.freeze();
    const before = one.heartbeats.length;
    await until(() => one.heartbeats.length > before + 1, { what: "heartbeats without SQL" });
    await open.append(2);
    proxy.thaw();
    expect(await one.has(4)).toEqual([1, 2, 3, 4]);
    one.end();
  });
});
