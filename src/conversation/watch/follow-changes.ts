import type { ConversationChange_Kind as ToldKind } from "../../gen/holdfast/v1/conversation_pb.js";
import { createBell } from "../../infra/bell.ts";
import { createHeartbeat } from "../../infra/heartbeat.ts";
import { createPauses } from "../../infra/pauses.ts";
import { type Change, type Scope, toldKind } from "./change.ts";
import type { Changes } from "./changes.ts";
import type { Feed } from "./feed.ts";
import type { Follower } from "./follower.ts";
import { type Begun, GAP } from "./start.ts";

/** What a watcher is told; `at` is the place after which it goes on. */
export type WatchEvent =
  | { readonly kind: "change"; readonly change: Change; readonly told: ToldKind; readonly at: number }
  | { readonly kind: "heartbeat"; readonly at: number }
  | { readonly kind: "compacted"; readonly reason: string; readonly at: number };

export interface FollowOptions {
  readonly feed: Feed;
  readonly changes: Pick<Changes, "page">;
  readonly scope: Scope;
  readonly begun: Begun;
  readonly heartbeatMs: number;
  readonly signal: AbortSignal;
}

/** A page is in memory until its reader has taken it. One of which nothing is told is not, so the next may be larger. */
const PAGE = { least: 25, most: 800, bytes: 32 * 1024 } as const;

/**
 * Tells one watcher of changes, at their pace, until the signal is aborted (then it throws its reason) or SQL is away. It never
 * holds more than a page: what others have read as well comes from the feed, the rest from SQL.
 */
export async function* followChanges(options: FollowOptions): AsyncGenerator<WatchEvent> {
  const { feed, changes, scope, begun, signal } = options;
  const beat = createHeartbeat(options.heartbeatMs);
  const bell = createBell();
  const pause = createPauses();
  let size: number = PAGE.least;
  let late = begun.gap;

  /** What is told of the changes behind the follower, which is past them then. */
  async function* readPage(follower: Follower): AsyncGenerator<WatchEvent> {
    await pause();
    const page = await changes.page(scope, follower.at, { changes: size, bytes: PAGE.bytes });
    const told = page.changes.flatMap((change) => tellOf(scope, change) ?? []);
    size = told.length === 0 ? Math.min(2 * size, PAGE.most) : PAGE.least;
    if (page.gap) yield { kind: "compacted", reason: late, at: page.head };
    else yield* told;
    follower.skipTo(page.next);
  }

  using following = feed.follow(scope, begun.at === GAP ? begun.head : begun.at, begun.head, bell.ring);
  const { follower } = following;
  signal.addEventListener("abort", bell.ring, { once: true });
  try {
    if (begun.at === GAP) yield { kind: "compacted", reason: late, at: begun.head };
    for (;;) {
      signal.throwIfAborted();
      const change = follower.take();
      if (change === "behind") {
        for await (const event of readPage(follower)) {
          signal.throwIfAborted();
          yield event;
          beat.sent();
        }
      } else if (change !== undefined) {
        const event = tellOf(scope, change);
        if (event !== undefined) yield event;
        beat.sent();
      } else {
        await bell.wait(beat.at - performance.now());
      }
      late = "reader too slow";
      if (performance.now() >= beat.at) {
        yield { kind: "heartbeat", at: follower.at };
        beat.sent();
      }
    }
  } finally {
    signal.removeEventListener("abort", bell.ring);
  }
}

function tellOf(scope: Scope, change: Change): WatchEvent | undefined {
  const told = toldKind(scope, change);
  return told === undefined ? undefined : { kind: "change", change, told, at: change.seq };
}
