import { create } from "@bufbuild/protobuf";
import {
  type LockService,
  LockServiceCheckTokenResponseSchema,
  LockServiceGetResponseSchema,
  type LockServiceListRequest,
  LockServiceListResponseSchema,
  LockTokenState,
} from "../../gen/holdfast/v1/lock_pb.js";
import type { Rpcs } from "../../infra/call.ts";
import { readNamedToken, writeNamedToken } from "../../infra/token.ts";
import type { Authority, Looked } from "../authority/authority.ts";
import { isToken } from "../record/token.ts";
import type { Lines } from "../wait/lines.ts";
import { LIMITS, LockFields } from "./fields.ts";
import { layerOf, lockIfAny, lockOf, timestamp } from "./replies.ts";

export interface ReadOptions {
  readonly authority: Authority;
  readonly lines: Pick<Lines, "waiters">;
}

/** Get, List and CheckToken. */
export function createReadRpcs({
  authority,
  lines,
}: ReadOptions): Required<Pick<Rpcs<typeof LockService>, "get" | "list" | "checkToken">> {
  return {
    async get({ name }, call) {
      const fields = new LockFields();
      fields.name(name);
      fields.done();
      const { lease, lastToken } = await authority.look(name);
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      return create(LockServiceGetResponseSchema, {
        lock: lockIfAny(lease, kind),
        lastToken: BigInt(lastToken),
        waiters: lines.waiters(name),
        authority: kind,
      });
    },

    async list(request, call) {
      const question = questionOf(request, authority);
      const fields = new LockFields();
      fields.text("prefix", request.prefix, LIMITS.nameBytes, true);
      fields.text("owner", request.owner, LIMITS.ownerBytes, true);
      const limit = fields.pageSize(request.pageSize);
      const after = request.pageToken === "" ? undefined : readNamedToken(question, request.pageToken, 0)?.name;
      if (request.pageToken !== "" && after === undefined) {
        fields.refuse("page_token", "is not one of List with the same prefix and owner");
      }
      fields.done();
      const { mayUse } = call.caller;
      const listed = await authority.list({
        prefix: request.prefix,
        owner: request.owner || undefined,
        mayUse: (namespace) => mayUse.call(call.caller, namespace),
        limit,
        after,
      });
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      return create(LockServiceListResponseSchema, {
        locks: listed.leases.map((lease) => lockOf(lease, kind)),
        nextPageToken: listed.after === undefined ? "" : writeNamedToken(question, { place: [], name: listed.after }),
        authority: kind,
      });
    },

    async checkToken({ name, fencingToken }, call) {
      const fields = new LockFields();
      fields.name(name);
      const token = fields.token("fencing_token", fencingToken);
      fields.done();
      const looked = await authority.look(name);
      const { kind } = authority;
      call.servedBy(layerOf(kind));
      const state = stateOf(token, looked);
      const { lease, lastToken } = looked;
      return create(LockServiceCheckTokenResponseSchema, {
        state,
        lastToken: BigInt(lastToken),
        authority: kind,
        ...(state === LockTokenState.CURRENT && lease && { expireTime: timestamp(lease.grant.expireMs) }),
      });
    },
  };
}

/** Another authority counts its places otherwise. */
function questionOf({ prefix, owner }: LockServiceListRequest, { kind }: Authority): string {
  return `locks ${kind} ${prefix.length} ${prefix} ${owner}`;
}

/** What a token is worth, by what is known of its lock. */
export function stateOf(token: number, { lease, lastToken }: Looked): LockTokenState {
  if (token > lastToken || !isToken(token)) return LockTokenState.UNKNOWN;
  if (token < lastToken) return LockTokenState.STALE;
  return lease?.grant.token === token ? LockTokenState.CURRENT : LockTokenState.ENDED;
}
