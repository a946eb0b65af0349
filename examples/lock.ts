// Two workers and one job, of which only one does it at a time: node examples/lock.ts
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { LockOutcome, LockService } from "../src/gen/holdfast/v1/lock_pb.js";

const baseUrl = process.env.HOLDFAST_URL ?? "http://127.0.0.1:7420";
const locks = createClient(LockService, createGrpcTransport({ baseUrl }));
const name = `examples/${crypto.randomUUID()}`;

/** What the job writes to: it keeps the largest token that it has seen, and refuses whoever comes with a smaller one. */
const ledger = { token: 0n, lines: [] as string[] };

function write(line: string, token: bigint): void {
  if (token < ledger.token) throw new Error("an older holder: its lease is over");
  ledger.token = token;
  ledger.lines.push(line);
}

/** Holds the lock for as long as the work takes; work that may not go on is told by the signal. */
async function withLock(owner: string, work: (token: bigint, lost: AbortSignal) => Promise<void>): Promise<void> {
  const over = new AbortController();
  const lost = new AbortController();
  let working: Promise<void> | undefined;
  try {
    for await (const { event } of locks.hold({ name, owner, ttl: { seconds: 5n } }, { signal: over.signal })) {
      if (event.case === "acquired") {
        // The end of the stream gives the lock back.
        working = work(event.value.lock?.fencingToken ?? 0n, lost.signal).finally(() => over.abort());
      }
      if (event.case === "lost") lost.abort(new Error(event.value.message));
    }
  } catch (error) {
    if (!over.signal.aborted) lost.abort(error);
  }
  await working;
}

async function worker(owner: string): Promise<void> {
  await withLock(owner, async (token, lost) => {
    for (const step of ["begins", "ends"]) {
      lost.throwIfAborted();
      write(`${owner} ${step}`, token);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });
}

await Promise.all([worker("ada"), worker("grace")]);
const [first, second, third, fourth] = ledger.lines;
console.log(ledger.lines.join(", "));
if (first?.split(" ")[0] !== second?.split(" ")[0] || third?.split(" ")[0] !== fourth?.split(" ")[0]) {
  throw new Error("they worked at the same time");
}

const { outcome } = await locks.acquire({ name, waitTimeout: { seconds: 1n } });
console.log(outcome === LockOutcome.ACQUIRED ? "the lock is free again" : "the lock is still held");
