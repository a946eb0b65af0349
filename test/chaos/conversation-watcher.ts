import { setTimeout as delay } from "node:timers/promises";
import { type ConversationChange, ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { createConversationClient } from "../support/conversation-client.ts";

const { method } = ConversationStateService;

export interface Watcher<T> extends Disposable {
  readonly by: string;
  readonly changes: readonly T[];
  readonly problems: readonly string[];
  readonly opened: number;
}

/** Watches a collection on one instance, and goes on where it was after each break. */
export async function followAll<T>(
  address: string,
  collection: string,
  toldOf: (change: ConversationChange) => T,
): Promise<Watcher<T>> {
  const client = createConversationClient(address);
  const by = `watch of ${address}`;
  const changes: T[] = [];
  const problems: string[] = [];
  const open = Promise.withResolvers<void>();
  let opened = 0;
  let token = "";
  let stream: Disposable | undefined;
  let closed = false;

  async function follow(): Promise<void> {
    while (!closed) {
      const start = token === "" ? ({ case: undefined } as const) : ({ case: "resumeToken", value: token } as const);
      const request = { collection, includeMessages: true, start };
      const following = client.follow(method.watch, request, ({ event, resumeToken }) => {
        token = resumeToken;
        if (event.case === "opened") {
          opened++;
          open.resolve();
        } else if (event.case === "change") changes.push(toldOf(event.value));
        else if (event.case === "compacted") problems.push(`${by}: compacted, ${event.value.reason}`);
      });
      stream = following;
      const why = await following.ended;
      if (!closed && why?.code !== "UNAVAILABLE") problems.push(`${by}: ended with ${why?.message ?? "OK"}`);
      await delay(20);
    }
  }

  void follow();
  await open.promise;
  return {
    ...{ by, changes, problems },
    get opened() {
      return opened;
    },
    [Symbol.dispose]: () => {
      closed = true;
      stream?.[Symbol.dispose]();
      client[Symbol.dispose]();
    },
  };
}
