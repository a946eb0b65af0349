import type { ConversationStateService } from "../../gen/holdfast/v1/conversation_pb.js";
import type { Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import { createContact } from "../../infra/contact.ts";
import type { HotCopies } from "../hot/hot-copies.ts";
import type { PolicyFor } from "../record/conversation.ts";
import { createCurrent } from "./current.ts";
import { createGetRpc } from "./get-rpc.ts";
import { createListRpc } from "./list-rpc.ts";
import type { Listing } from "./listing.ts";
import { createMessagesRpc } from "./messages-rpc.ts";
import { createReading } from "./reading.ts";
import { type Counts, createStats } from "./stats.ts";
import { createStatsRpc } from "./stats-rpc.ts";
import { createStatusRpcs } from "./status-rpcs.ts";
import { type Truth, withContact } from "./truth.ts";
import type { Usages } from "./usage.ts";
import { createVersionsRpc } from "./versions-rpc.ts";

export interface ReadRpcsOptions {
  readonly truth: Truth;
  readonly listing: Listing;
  readonly counts: Counts;
  readonly copies: HotCopies;
  readonly policyFor: PolicyFor;
  readonly usages: Usages;
  readonly clock: Clock;
  readonly instanceId: string;
}

export type ReadRpc = "get" | "exists" | "getStatus" | "listMessages" | "list" | "listVersions" | "getStats";

/** The RPCs that read conversations. */
export function createReadRpcs(
  options: ReadRpcsOptions,
): Required<Pick<Rpcs<typeof ConversationStateService>, ReadRpc>> {
  const { counts, copies, policyFor, usages, clock, instanceId } = options;
  const contact = createContact(
    () => options.truth.ping(),
    () => clock.monotonic(),
  );
  const truth = withContact(options.truth, contact);
  const listing: Listing = { page: (query) => contact.ask(() => options.listing.page(query)) };
  const reading = createReading({ policyFor, clock, usages });
  const current = createCurrent({ truth, copies, contact, clock });
  const stats = createStats({ counts, listing, clock });
  return {
    ...createGetRpc({ reading, current, truth }),
    ...createStatusRpcs({ reading, current }),
    ...createMessagesRpc({ reading, truth }),
    ...createListRpc({ reading, listing, truth }),
    ...createVersionsRpc({ reading, truth }),
    ...createStatsRpc({ reading, stats, usages, truth, instanceId }),
  };
}
