import { createHash, randomUUID } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import {
  ConversationMessageSchema,
  ConversationPresence,
  ConversationStateService,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { type Api, ApiError } from "../client/api.ts";
import type { Patience } from "../client/patience.ts";
import { canonicalText } from "./conversation-json.ts";
import { type Batch, type Expiry, secondsLong } from "./conversation-requests.ts";
import type { Named, Sendable } from "./conversation-source.ts";
import { BrokenOffError } from "./interruption.ts";

export interface StagingOptions {
  readonly api: Api;
  readonly patience: Patience;
  readonly signal: AbortSignal;
}

/** What became of a document that was put together there. */
export type Staged = "imported" | "deleted there" | "again";

export interface Staging {
  /** Resolves once the document is there as a whole, or somebody else was first. */
  bring(sendable: Sendable, batches: readonly Batch[], expiry: Expiry | undefined): Promise<Staged>;
  /** Removes what an import left behind that died when all but that was done. `origin`: what the conversation was copied from. */
  clearUp(sendable: Sendable, origin: Named | undefined): Promise<void>;
}

const { method } = ConversationStateService;

/** A copy of a million messages takes a while. */
const FORK_MS = 300_000;
/** So long a half-sent conversation is kept that an import left behind when it died. */
const STAGED_SECONDS = 3600;
const ID_BYTES = 512;

/** The import stood still for so long that what it had sent has expired; or another import was faster. */
const OVERTAKEN: ReadonlySet<string> = new Set([
  "ALREADY_EXISTS CONVERSATION_EXISTS",
  "NOT_FOUND CONVERSATION_EXPIRED",
  "NOT_FOUND CONVERSATION_NOT_FOUND",
  "NOT_FOUND CONVERSATION_DELETED",
]);

/** What a call that was refused means for the document, if it means anything. */
function fateOf(error: unknown): Staged | undefined {
  if (!(error instanceof ApiError)) return undefined;
  const said = `${error.code} ${error.reason}`;
  if (OVERTAKEN.has(said)) return "again";
  return said === "FAILED_PRECONDITION CONVERSATION_DELETED" ? "deleted there" : undefined;
}

/**
 * What does not fit into one request is put together under another id and then copied in one step. So nobody sees half of it, and
 * when the import dies in the middle, no copy of that half lies over the document that it came from. The next import goes on there.
 */
export function createStaging({ api, patience, signal }: StagingOptions): Staging {
  async function bring(
    sendable: Sendable,
    [first = [], ...more]: readonly Batch[],
    expiry: Expiry | undefined,
  ): Promise<Staged> {
    const { collection, id, document } = sendable;
    const staged = { collection, id: stagedId(sendable) };
    try {
      const { state } = document;
      const create = {
        ...{ ...staged, state, messages: first, expiry: secondsLong(STAGED_SECONDS) },
        ...{ expectedVersion: 0n, returnConflict: true, requestId: randomUUID() },
      };
      // A conflict: an import that was broken off has left it. What it had sent is not appended again.
      await patience.until(() => api.call(method.save, create));
      let position = first.length;
      for (const messages of more) {
        if (signal.aborted) throw new BrokenOffError();
        const { appended } = await patience.until(() => api.call(method.appendMessages, { ...staged, messages }));
        const isInPlace = appended.every((one) => one.position === BigInt(++position));
        // Others have begun it anew meanwhile.
        if (!isInPlace) return await leave(staged, "again");
      }
      const fork = {
        ...{ ...staged, targetCollection: collection, targetId: id, requestId: randomUUID() },
        ...(expiry && { expiry }),
      };
      await patience.until(() => api.call(method.fork, fork, FORK_MS));
      return await leave(staged, "imported");
    } catch (error) {
      const fate = fateOf(error);
      if (fate !== undefined) return await leave(staged, fate);
      // What was broken off is gone on with; what was refused would be refused again.
      if (error instanceof ApiError && !error.isTransient) await leave(staged, "again");
      throw error;
    }
  }

  /** Deletes it. What the server does not delete now expires by itself. */
  async function leave(staged: Named, fate: Staged): Promise<Staged> {
    try {
      await api.call(method.delete, staged);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
    return fate;
  }

  return {
    bring,
    async clearUp(sendable, origin) {
      if (origin === undefined || origin.id !== stagedId(sendable)) return;
      const staged = { collection: origin.collection, id: origin.id };
      const { presence } = await patience.until(() => api.call(method.exists, staged));
      if (presence === ConversationPresence.LIVE) await leave(staged, "imported");
    },
  };
}

/** The same for the same document, and with its id in it: whoever meets it can tell where it comes from. */
function stagedId({ collection, id, document }: Sendable): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([collection, id]))
    .update(canonicalText(document.state));
  for (const { message } of document.messages) hash.update(toBinary(ConversationMessageSchema, message));
  const name = `import-${hash.digest("hex").slice(0, 32)}`;
  const traced = `${name}-${id}`;
  return Buffer.byteLength(traced) <= ID_BYTES ? traced : name;
}
