import { parseArgs } from "node:util";
import { create, toJsonString } from "@bufbuild/protobuf";
import type { Environment } from "../config.ts";
import { AuditServiceCheckpointResponseSchema } from "../gen/holdfast/v1/audit_pb.js";
import { openOutput } from "./client/output.ts";
import { serverOf, serverOptions } from "./client/server-options.ts";
import { withSession } from "./client/session.ts";
import { help } from "./usage.ts";

export interface ClientContext {
  readonly environment: Environment;
  readonly stdout: NodeJS.WritableStream;
  /** For people, beside what a script would read. */
  remark(line: string): void;
}

export const options = { ...serverOptions, out: { type: "string" }, help: { type: "boolean", short: "h" } } as const;

/** Fetches the signed root of the archive as the JSON that `holdfast verify --checkpoint` reads. */
export async function checkpointCommand(
  args: readonly string[],
  { environment, stdout, remark }: ClientContext,
): Promise<number> {
  const { values } = parseArgs({ args: [...args], options });
  if (values.help) {
    stdout.write(help);
    return 0;
  }
  const server = await serverOf(values, environment);
  return withSession(server, remark, async ({ api, patience }) => {
    const checkpoint = await patience.until(() => api.checkpoint());
    const response = create(AuditServiceCheckpointResponseSchema, { checkpoint });
    const output = openOutput(values.out, stdout);
    try {
      const json = toJsonString(AuditServiceCheckpointResponseSchema, response, { prettySpaces: 2 });
      await output.write(Buffer.from(`${json}\n`));
      output.complete();
    } finally {
      output.close();
    }
    remark(`a checkpoint of ${checkpoint.treeSize} leaves of ${JSON.stringify(checkpoint.origin)}`);
    return 0;
  });
}
