import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type RateLimitDescriptorSchema,
  RateLimitService,
  type RateLimitServiceCheckResponse,
} from "../../src/gen/holdfast/v1/rate_limit_pb.js";
import { type Answer, createRpcClient, type RpcClient, type RpcClientOptions } from "./rpc-client.ts";

export { CallFailed } from "./rpc-client.ts";

const { method } = RateLimitService;

export type DescriptorInit = MessageInitShape<typeof RateLimitDescriptorSchema>;
export type CheckInit = MessageInitShape<typeof method.check.input>;
export type AcquireInit = MessageInitShape<typeof method.acquireConcurrency.input>;

export interface RateLimitClient extends RpcClient {
  /** One unit of a configured rule, or what `more` says. */
  check(rule: string, key: string, more?: CheckInit): Promise<Answer<RateLimitServiceCheckResponse>>;
}

/** A configured rule, for somebody. */
export function limit(rule: string, key: string, cost?: number): DescriptorInit {
  return { rule: { case: "ruleName", value: rule }, key, ...(cost !== undefined && { cost: BigInt(cost) }) };
}

export function createRateLimitClient(address: string, options?: RpcClientOptions): RateLimitClient {
  const client = createRpcClient(address, options);
  return {
    ...client,
    check: (rule, key, more = {}) => client.call(method.check, { descriptors: [limit(rule, key)], ...more }),
  };
}
