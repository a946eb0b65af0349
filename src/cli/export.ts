import { parseArgs } from "node:util";
import { isMessage, type MessageInitShape } from "@bufbuild/protobuf";
import {
  AuditExportFormat,
  type AuditFilterSchema,
  type AuditServiceExportRequestSchema,
  type AuditServiceExportResponse,
  AuditServiceExportResponseSchema,
} from "../gen/holdfast/v1/audit_pb.js";
import type { ClientContext } from "./checkpoint.ts";
import { ApiError, isServiceError } from "./client/api.ts";
import { type Output, OutputFailed, openOutput } from "./client/output.ts";
import { serverOf, serverOptions } from "./client/server-options.ts";
import { type Session, withSession } from "./client/session.ts";
import { type Moment, momentOf } from "./import/values.ts";
import { help, UsageError } from "./usage.ts";

export const options = {
  ...serverOptions,
  format: { type: "string" },
  out: { type: "string" },
  actor: { type: "string", multiple: true },
  action: { type: "string", multiple: true },
  resource: { type: "string" },
  since: { type: "string" },
  until: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

type Options = ReturnType<typeof parse>["values"];
type Request = MessageInitShape<typeof AuditServiceExportRequestSchema>;

const parse = (args: readonly string[]) => parseArgs({ args: [...args], options });

/** Writes the records that match to a file or to stdout. Resolves with the exit code: 0 when it is all of them. */
export async function exportCommand(
  args: readonly string[],
  { environment, stdout, remark }: ClientContext,
): Promise<number> {
  const { values } = parse(args);
  if (values.help) {
    stdout.write(help);
    return 0;
  }
  const request: Request = { format: formatOf(values.format), filter: filterOf(values) };
  const server = await serverOf(values, environment);
  return withSession(server, remark, async (session) => {
    const output = openOutput(values.out, stdout);
    const done = { records: 0, bytes: 0 };
    const count = () => `${done.records} records, ${done.bytes} bytes`;
    try {
      await exportTo(output, request, session, done);
      output.complete();
      remark(`exported: ${count()}`);
      return 0;
    } catch (error) {
      const isFailed = error instanceof OutputFailed;
      remark(`the export is not complete: it broke off after ${count()}${isFailed ? `: ${error.message}` : ""}`);
      if (isFailed) return 1;
      throw error;
    } finally {
      output.close();
    }
  });
}

/** Over as many streams as it takes, each where the one before broke off. */
async function exportTo(
  output: Output,
  request: Request,
  { api, patience }: Session,
  done: { records: number; bytes: number },
): Promise<void> {
  let resumeToken = "";

  /** Whether the export is complete. */
  async function overOneStream(): Promise<boolean> {
    const stream = api.export({ ...request, resumeToken });
    try {
      for await (const response of stream) {
        const { data, records, resumeToken: next, last } = chunkOf(response);
        await output.write(data);
        resumeToken = next;
        done.records += records;
        done.bytes += data.length;
        patience.succeeded();
        if (last) return true;
      }
    } catch (error) {
      if (isServiceError(error)) throw new ApiError("Export", error);
      throw error;
    } finally {
      stream.cancel();
    }
    throw ApiError.unavailable("Export", "the server ended the stream early");
  }

  for (let isComplete = false; !isComplete; ) {
    isComplete = await overOneStream().catch(async (error: unknown) => {
      await patience.failed(error);
      return false;
    });
  }
}

/** The stream is typed by its decoder only. */
function chunkOf(response: unknown): AuditServiceExportResponse {
  if (isMessage(response, AuditServiceExportResponseSchema)) return response;
  throw new TypeError("the server sent something else than an export");
}

function formatOf(format = "ndjson"): AuditExportFormat {
  if (format === "ndjson") return AuditExportFormat.NDJSON;
  if (format === "csv") return AuditExportFormat.CSV;
  throw new UsageError(`--format is ${JSON.stringify(format)}, wanted ndjson or csv`);
}

function filterOf(values: Options): MessageInitShape<typeof AuditFilterSchema> {
  const { actor = [], action = [], resource } = values;
  const [startTime, endTime] = [timeOf("--since", values.since), timeOf("--until", values.until)];
  return {
    actors: actor,
    actions: action,
    ...(resource !== undefined && resourceOf(resource)),
    ...(startTime && { startTime }),
    ...(endTime && { endTime }),
  };
}

/** An id may hold slashes, a type does not. */
function resourceOf(text: string): { resourceType: string; resourceId: string } {
  const at = text.indexOf("/");
  if (at < 1 || at === text.length - 1) {
    throw new UsageError(`--resource is ${JSON.stringify(text)}, wanted TYPE/ID such as memory/m-7`);
  }
  return { resourceType: text.slice(0, at), resourceId: text.slice(at + 1) };
}

function timeOf(option: string, text: string | undefined): Moment | undefined {
  if (text === undefined) return undefined;
  const time = /^\d{4}-/.test(text) ? momentOf(text) : undefined;
  if (time !== undefined) return time;
  throw new UsageError(
    `${option} is ${JSON.stringify(text)}, wanted a time such as 2026-01-31 or 2026-01-31T17:30:00Z (UTC without a zone)`,
  );
}
