import type { Backplane } from "../infra/backplane.ts";
import type { Log } from "../infra/log.ts";
import { LOCK_TOPIC, type Released } from "./authority/authority.ts";
import { isKeptByStream } from "./record/grant.ts";
import type { Lines } from "./wait/lines.ts";

/** Those who keep grants by a stream. */
export interface Keepers {
  /** Something may have happened to the grant of this lock. */
  check(name: string): void;
  /** Messages may have been lost. */
  checkAll(): void;
}

/** Tells of locks that changed hands, here and elsewhere. */
export interface Notice {
  /** A lease was ended, by another than whoever keeps it with a stream, perhaps on another instance. */
  freed(name: string, released: Pick<Released, "lease" | "unkept">): void;
  /** Another stream goes on with a grant. */
  inherited(name: string): void;
  close(): void;
}

export interface NoticeOptions {
  readonly backplane: Backplane;
  readonly lines: Pick<Lines, "ring" | "ringAll">;
  readonly keepers: Keepers;
  readonly log: Log;
}

/** A message names a lock: whoever waits for it asks again, and whoever keeps it looks whether it still does. */
export function createNotice({ backplane, lines, keepers, log }: NoticeOptions): Notice {
  function heard(name: string): void {
    lines.ring(name);
    keepers.check(name);
  }

  function tell(name: string): void {
    backplane.publish(LOCK_TOPIC, name).catch((err: unknown) =>
      // Whoever keeps the grant learns it with the next renewal.
      log.debug({ err, lock: name }, "could not tell other instances that a lock changed hands"),
    );
  }

  const stop = [
    backplane.subscribe(LOCK_TOPIC, heard),
    backplane.onGap((live) => {
      if (!live) return;
      lines.ringAll();
      keepers.checkAll();
    }),
  ];
  return {
    freed(name, { lease, unkept }) {
      heard(name);
      // Those who wait elsewhere are told by the authority, which knows of them.
      if (unkept === undefined && (lease === undefined || isKeptByStream(lease.grant))) tell(name);
    },
    inherited(name) {
      keepers.check(name);
      tell(name);
    },
    close() {
      for (const end of stop) end();
    },
  };
}
