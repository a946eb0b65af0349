import { create } from "@bufbuild/protobuf";
import {
  type ConversationCollectionStats,
  ConversationCollectionStatsSchema,
  type ConversationStateService,
  ConversationStateServiceGetStatsResponseSchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { Rpcs } from "../../infra/call.ts";
import { ConversationFields } from "../record/fields.ts";
import { timestampOf } from "../record/summary.ts";
import type { Reading } from "./reading.ts";
import type { Counted, Figures, Stats } from "./stats.ts";
import type { Truth } from "./truth.ts";
import type { Usages } from "./usage.ts";

export interface StatsRpcOptions {
  readonly reading: Reading;
  readonly stats: Stats;
  readonly usages: Usages;
  readonly truth: Pick<Truth, "layer">;
  readonly instanceId: string;
}

const MOST_COLLECTIONS = 1000;

export function createStatsRpc(
  options: StatsRpcOptions,
): Required<Pick<Rpcs<typeof ConversationStateService>, "getStats">> {
  const { reading, stats, usages, truth, instanceId } = options;

  function statsOf(
    collection: string,
    figures: Figures,
    { countedUs }: Counted,
    lastUpdateUs: number | undefined,
  ): ConversationCollectionStats {
    const { hotHits, sqlHits, conflicts } = usages.of(collection);
    return create(ConversationCollectionStatsSchema, {
      collection,
      live: BigInt(figures.live),
      expired: BigInt(figures.expired),
      tombstones: BigInt(figures.tombstones),
      messages: BigInt(figures.messages),
      stateBytes: BigInt(figures.stateBytes),
      statuses: figures.statuses.map(({ status, conversations }) => ({ status, conversations: BigInt(conversations) })),
      ...(lastUpdateUs !== undefined && { lastUpdateTime: timestampOf(lastUpdateUs) }),
      countTime: timestampOf(countedUs),
      hotHits: BigInt(hotHits),
      sqlHits: BigInt(sqlHits),
      conflicts: BigInt(conflicts),
    });
  }

  return {
    async getStats(request, call) {
      const fields = new ConversationFields();
      const named = request.collection;
      const wanted = named === undefined ? undefined : fields.collection("collection", named);
      if (wanted !== undefined) reading.policyOf(fields, { collection: wanted });
      const counted = await stats.figures();
      const usable = [...counted.collections.keys()].filter((collection) => call.caller.mayUse(collection)).sort();
      const names = wanted === undefined ? usable.slice(0, MOST_COLLECTIONS) : [wanted];
      const figuresOf = (name: string) => counted.collections.get(name) ?? NONE;
      const updates = await counted.lastUpdates(names.filter((name) => figuresOf(name).live > 0));
      const collections = names.map((name) => statsOf(name, figuresOf(name), counted, updates.get(name)));
      call.servedBy(truth.layer);
      return create(ConversationStateServiceGetStatsResponseSchema, { collections, instanceId });
    },
  };
}

const NONE: Figures = { live: 0, expired: 0, tombstones: 0, messages: 0, stateBytes: 0, statuses: [] };
