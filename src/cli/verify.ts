import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Failure } from "../infra/failure.ts";
import { UsageError } from "./usage.ts";

export interface VerifyRequest {
  readonly checkpoints: readonly { readonly file: string; readonly text: string }[];
  /** As it was given: base64, or PEM. */
  readonly publicKey: string | undefined;
  onProgress(checked: number, size: number): void;
}

export interface VerifyOutcome {
  readonly sound: boolean;
  /** For people, a line each. */
  readonly lines: readonly string[];
  /** For programs. */
  readonly json: object;
}

export interface VerifyContext {
  /** Rejects with a Failure that says why nothing could be verified. */
  verify(request: VerifyRequest): Promise<VerifyOutcome>;
  print(line: string): void;
  /** For people, beside what a script would read. */
  remark(line: string): void;
  /** In milliseconds. */
  now(): number;
}

const PROGRESS_MS = 2_000;

const options = {
  checkpoint: { type: "string", multiple: true },
  "public-key": { type: "string" },
  json: { type: "boolean" },
} as const;

/** Neither sound nor damaged: nothing could be read. */
const NOT_VERIFIED = 3;

/** Resolves with the exit code: 0 when everything is as it was written, 1 when not, 3 when that cannot be said. */
export async function verifyCommand(args: readonly string[], context: VerifyContext): Promise<number> {
  const { values } = parseArgs({ args: [...args], options });
  const files = values.checkpoint ?? [];
  const publicKey = values["public-key"];
  let remarkedAt = context.now();
  const request: VerifyRequest = {
    checkpoints: files.map((file) => ({ file, text: read("--checkpoint", file) })),
    publicKey: publicKey === undefined ? undefined : keyText(publicKey),
    onProgress(checked, size) {
      if (context.now() - remarkedAt < PROGRESS_MS) return;
      remarkedAt = context.now();
      context.remark(`${checked.toLocaleString("en")} of ${size.toLocaleString("en")} leaves checked`);
    },
  };
  let outcome: VerifyOutcome;
  try {
    outcome = await context.verify(request);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    context.remark(`nothing was verified: ${error.message}`);
    return NOT_VERIFIED;
  }
  if (values.json) context.print(JSON.stringify(outcome.json, null, 2));
  else for (const line of outcome.lines) context.print(line);
  return outcome.sound ? 0 : 1;
}

/** The key itself, or the file that it is in. */
function keyText(given: string): string {
  const isItself = given.includes("-----BEGIN") || /^[A-Za-z0-9+/]{43}=$/.test(given);
  return isItself ? given : read("--public-key", given);
}

function read(option: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const why = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new UsageError(`${option} names ${file}, which cannot be read (${why})`);
  }
}
