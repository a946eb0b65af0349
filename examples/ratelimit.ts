// A door that lets five people in each hour, asked by eight at once; and a rule that says how long the others should wait.
// Start a server (`make run`), then: npm exec -c 'node examples/ratelimit.ts'
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RateLimitAlgorithm, RateLimitService } from "../src/gen/holdfast/v1/rate_limit_pb.js";

const baseUrl = process.env.HOLDFAST_URL ?? "http://127.0.0.1:7420";
const limits = createClient(RateLimitService, createGrpcTransport({ baseUrl }));

// Given with the request, so that this runs on any server. As a rule, rules stand in holdfast.yaml (docs/ratelimit.md).
const rule = {
  name: "door",
  algorithm: RateLimitAlgorithm.SLIDING_WINDOW,
  limit: 5n,
  period: { seconds: 3600n },
};
const descriptors = [{ rule: { case: "inlineRule" as const, value: rule }, key: crypto.randomUUID() }];

const answers = await Promise.all(Array.from({ length: 8 }, () => limits.check({ descriptors })));
const denied = answers.filter(({ allowed }) => !allowed);
console.log(`${answers.length - denied.length} of ${answers.length} were let in`);
console.log(
  `the others should come again after ${Number(denied[0]?.retryAfter?.seconds ?? 0) > 0 ? "a while" : "no time"}`,
);
