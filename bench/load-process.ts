import { appendLoad, listLoad } from "./audit-messages.ts";
import { appendMessagesLoad, getConversationLoad, saveLoad } from "./conversation-messages.ts";
import { claimLoad } from "./dedup-messages.ts";
import { type LoadOptions, load } from "./h2-load.ts";
import { getManyRequests, getRequests, setRequests } from "./messages.ts";
import { checkLoad } from "./ratelimit-messages.ts";
import type { Call } from "./ratio.ts";

/** `node load-process.ts '{"port":..., "path":"Get", ...}'`: makes the load and prints what came of it as a line of JSON. */
type Order = Call & {
  readonly port: number;
  readonly connections: number;
  readonly streams: number;
  readonly durationMs: number;
};

const CACHE = "/holdfast.v1.CacheService";
const AUDIT = "/holdfast.v1.AuditService";
const CONVERSATION = "/holdfast.v1.ConversationStateService";
const DEDUP = "/holdfast.v1.DedupService";
const RATE_LIMIT = "/holdfast.v1.RateLimitService";

function loadOf(order: Order): Pick<LoadOptions, "path" | "bodies" | "patch"> {
  switch (order.path) {
    case "Get":
      return { path: `${CACHE}/Get`, bodies: getRequests(order.namespace) };
    case "GetMany":
      return { path: `${CACHE}/GetMany`, bodies: getManyRequests(order.namespace, 50) };
    case "Set":
      return { path: `${CACHE}/Set`, bodies: setRequests(order.namespace) };
    case "Append":
      return { path: `${AUDIT}/Append`, ...appendLoad() };
    case "List":
      return { path: `${AUDIT}/List`, ...listLoad(order.actors) };
    case "Save":
      return { path: `${CONVERSATION}/Save`, ...saveLoad() };
    case "GetConversation":
      return { path: `${CONVERSATION}/Get`, ...getConversationLoad() };
    case "AppendMessages":
      return { path: `${CONVERSATION}/AppendMessages`, ...appendMessagesLoad(order.ids) };
    case "Claim":
      return { path: `${DEDUP}/Claim`, ...claimLoad() };
    case "Check":
      return { path: `${RATE_LIMIT}/Check`, ...checkLoad() };
  }
}

const order = JSON.parse(process.argv[2] ?? "{}") as Order;
const result = await load({ ...order, ...loadOf(order) });
process.stdout.write(`${JSON.stringify(result)}\n`);
