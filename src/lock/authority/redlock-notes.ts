import { type NamedRequest, RequestIdReusedError } from "../../infra/named-request.ts";
import { LockAuthorityUnavailableError } from "../failures.ts";
import { tokenAfter } from "../record/token.ts";
import { ATTEMPT_KEPT_MS, type Authority } from "./authority.ts";
import { noteKeys } from "./redlock-keys.ts";
import type { Register, Write } from "./redlock-register.ts";
import { AMEND, SETTLE } from "./redlock-scripts.ts";
import { holderSeen, tokenBase } from "./redlock-view.ts";

export interface NotesOptions {
  readonly register: Register;
  readonly epoch: () => Promise<number>;
  /** Runs it until it comes to something, within limits. */
  readonly again: <T>(work: () => Promise<T | undefined>) => Promise<T | undefined>;
}

/** Texts that are kept under the id of a request. To the masters each is a lock of its own that is held while it is remembered. */
export function createNotes({ register, epoch, again }: NotesOptions): Authority["remember"] {
  async function rememberOnce(name: string, request: NamedRequest, text: string): Promise<string | undefined> {
    const keys = noteKeys(name, request.id);
    const claim = await register.claim(keys, "", false);
    const { answers, isMine, id } = claim;
    let isWritten = false;
    try {
      if (answers.some(({ attempt }) => attempt !== "" && attempt !== request.meaning)) {
        throw new RequestIdReusedError(request.id);
      }
      const write = { keys, ended: false, instanceId: "", rivalHadItsTurn: false };
      const seen = holderSeen(answers);
      if (isMine) {
        const base = tokenBase(answers);
        const token = tokenAfter(base.token, Math.max(base.epoch, await epoch()));
        const attempt = { meaning: request.meaning, forMs: ATTEMPT_KEPT_MS };
        const version = { token, rev: 1, id, text };
        const written = await kept({ ...write, kind: SETTLE, version, forMs: ATTEMPT_KEPT_MS, attempt });
        isWritten = written !== undefined;
        return written;
      }
      if (seen === undefined) return undefined;
      // A majority must have what is told from here on.
      const version = { ...seen.version, rev: seen.version.rev + 1 };
      return await kept({ ...write, kind: AMEND, version, forMs: seen.leftMs, attempt: undefined });
    } finally {
      if (!isWritten) claim.drop();
    }
  }

  async function kept(write: Write): Promise<string | undefined> {
    const wrote = await register.write(write);
    return wrote.kind === "written" ? write.version.text : undefined;
  }

  return async (name, request, text) => {
    const remembered = await again(() => rememberOnce(name, request, text));
    if (remembered === undefined) throw new LockAuthorityUnavailableError("others ask for the same at once");
    return remembered;
  };
}
