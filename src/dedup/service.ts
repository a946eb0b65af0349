import { create } from "@bufbuild/protobuf";
import {
  DedupService,
  DedupServiceGetResponseSchema,
  DedupServiceListResponseSchema,
  DedupServiceReleaseResponseSchema,
} from "../gen/holdfast/v1/dedup_pb.js";
import { type Mounted, mount, type ServedBy } from "../infra/call.ts";
import { writeNamedToken } from "../infra/token.ts";
import type { Dedup } from "./dedup.ts";
import type { Listing } from "./list/listing.ts";
import { DedupFields } from "./rpc/fields.ts";
import { claimMessage, claimReply, completeReply, foundMessage } from "./rpc/replies.ts";
import { claimOrderOf, completeOrderOf, listQueryOf, placeNumber, releaseOrderOf } from "./rpc/requests.ts";

export interface DedupServiceParts {
  readonly dedup: Dedup;
  readonly listing: Listing;
  /** What the truth is in. */
  readonly layer: ServedBy;
}

/** DedupService: decode, call, encode. */
export function createDedupService({ dedup, listing, layer }: DedupServiceParts): Mounted {
  return mount(DedupService, {
    async claim(request, call) {
      const answer = await dedup.claim(claimOrderOf(request, call.caller.name));
      call.servedBy(answer.kind === "copy" ? "redis" : layer);
      if (answer.kind === "copy" && answer.degraded) call.degraded();
      return claimReply(answer);
    },

    async complete(request, call) {
      const done = await dedup.complete(completeOrderOf(request));
      call.servedBy(layer);
      return completeReply(done);
    },

    async release(request, call) {
      const released = await dedup.release(releaseOrderOf(request));
      call.servedBy(layer);
      return create(DedupServiceReleaseResponseSchema, { released });
    },

    async get(request, call) {
      const fields = new DedupFields();
      const id = fields.subject(request);
      fields.done();
      const found = await dedup.get(id);
      call.servedBy(layer);
      return create(DedupServiceGetResponseSchema, found && { claim: foundMessage(found) });
    },

    async list(request, call) {
      const { query, question } = listQueryOf(request);
      const { claims, nowMs, next } = await listing.page(query);
      call.servedBy(layer);
      return create(DedupServiceListResponseSchema, {
        claims: claims.map((claim) => claimMessage(claim, nowMs)),
        nextPageToken: next ? writeNamedToken(question, { place: [placeNumber(next)], name: next.text }) : "",
      });
    },
  });
}
