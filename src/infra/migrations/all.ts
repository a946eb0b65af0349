import type { Migration } from "../migrations.ts";
import { cache } from "./0001-cache.ts";
import { audit } from "./0002-audit.ts";
import { auditGroups } from "./0003-audit-groups.ts";
import { conversation } from "./0004-conversation.ts";
import { lock } from "./0005-lock.ts";
import { fence } from "./0006-fence.ts";
import { dedup } from "./0007-dedup.ts";
import { lockFallback } from "./0008-lock-fallback.ts";

/** Every migration of this build. A new one goes to the end with the next number. */
export const migrations: readonly Migration[] = [
  ...[cache, audit, auditGroups, conversation, lock, fence, dedup, lockFallback],
];
