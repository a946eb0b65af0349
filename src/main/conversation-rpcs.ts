import type { HotCopies } from "../conversation/hot/hot-copies.ts";
import type { Ledger } from "../conversation/ledger/ledger.ts";
import { createReadRpcs } from "../conversation/read/read-rpcs.ts";
import { createSqlCounts } from "../conversation/read/sql-counts.ts";
import { createSqlListing } from "../conversation/read/sql-listing.ts";
import { createSqlTruth } from "../conversation/read/sql-truth.ts";
import type { Usages } from "../conversation/read/usage.ts";
import type { PolicyFor } from "../conversation/record/conversation.ts";
import { createForkRpc } from "../conversation/rpc/fork-rpc.ts";
import { createSqlForkCopies } from "../conversation/rpc/sql-fork-copies.ts";
import { createWriteRpcs } from "../conversation/rpc/write-rpcs.ts";
import { createCleanupRpc } from "../conversation/upkeep/cleanup-rpc.ts";
import type { Removal } from "../conversation/upkeep/removal.ts";
import type { ChangeBell } from "../conversation/watch/change-bell.ts";
import { createSqlChanges } from "../conversation/watch/sql-changes.ts";
import { createSqlContents } from "../conversation/watch/sql-contents.ts";
import { createWatchRpcs } from "../conversation/watch/watch-rpc.ts";
import type { Clock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Fences } from "../infra/fencing.ts";

export interface ConversationRpcParts {
  readonly instanceId: string;
  readonly database: Database;
  readonly bell: ChangeBell;
  readonly ledger: Ledger;
  readonly copies: HotCopies;
  readonly removal: Removal;
  readonly usages: Usages;
  readonly fences: Fences;
  readonly policyFor: PolicyFor;
  readonly clock: Clock;
}

/** The RPCs of ConversationStateService. */
export function createConversationRpcs(parts: ConversationRpcParts) {
  const { instanceId, database, bell, ledger, copies, removal, usages, fences, policyFor, clock } = parts;
  const { kind } = database;
  const truth = createSqlTruth(database);
  return {
    ...createReadRpcs({
      ...{ truth, copies, policyFor, usages, clock, instanceId },
      listing: createSqlListing({ database }),
      counts: createSqlCounts(database),
    }),
    ...createWriteRpcs({
      ...{ ledger, fences, kind, clock },
      onConflict: (collection) => {
        usages.of(collection).conflicts++;
      },
    }),
    ...createForkRpc({
      ...{ ledger, truth, policyFor, clock, kind },
      copies: createSqlForkCopies({ database, clock }),
    }),
    ...createWatchRpcs({
      ...{ bell, policyFor, clock, instanceId },
      ...{ changes: createSqlChanges(database), contents: createSqlContents(database), servedBy: kind },
    }),
    ...createCleanupRpc({ removal, policyFor, clock, servedBy: kind }),
  };
}
