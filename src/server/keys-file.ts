import { chmodSync, closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { type Document, parseDocument } from "yaml";
import { z } from "zod";
import type { ApiKeyRecord } from "./api-key.ts";

const record = z.strictObject({
  id: z.string().regex(/^[A-Za-z0-9]+$/),
  name: z.string().min(1),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  scopes: z.array(z.string().min(1)).min(1),
  namespaces: z.array(z.string().min(1)).default([]),
  expires_at: z.iso.datetime({ offset: true }).optional(),
});
const content = z.strictObject({ keys: z.array(record).nullish() });

export class KeysFileError extends Error {
  constructor(file: string, what: string) {
    super(`${file}: ${what}`);
    this.name = "KeysFileError";
  }
}

/** The records of a keys file (YAML, hence JSON too). Throws KeysFileError; a file that is not there holds none if `optional`. */
export function readKeys(file: string, { optional = false } = {}): ApiKeyRecord[] {
  return recordsOf(file, load(file, optional));
}

/**
 * Changes the file as one step: readers see it before or after, never in between, and two changes at once both happen. Only
 * the owner may read it. Comments that people wrote into it stay.
 */
export async function changeKeys<T>(file: string, change: (records: ApiKeyRecord[], keys: KeyList) => T): Promise<T> {
  const release = await lock(`${file}.lock`);
  try {
    const document = load(file, true);
    const records = recordsOf(file, document);
    const result = change(records, {
      add: (added) => {
        if (!document.has("keys") || document.get("keys") === null) document.set("keys", document.createNode([]));
        document.addIn(["keys"], document.createNode(added));
      },
      removeAt: (index) => document.deleteIn(["keys", index]),
    });
    replace(file, document.toString());
    return result;
  } finally {
    release();
  }
}

export interface KeyList {
  add(record: ApiKeyRecord): void;
  removeAt(index: number): void;
}

function load(file: string, optional: boolean): Document {
  let source = "";
  try {
    source = readFileSync(file, "utf8");
  } catch (error) {
    if (!(optional && hasCode(error, "ENOENT"))) throw new KeysFileError(file, `cannot be read (${codeOf(error)})`);
  }
  const document = parseDocument(source, { logLevel: "silent" });
  const [fault] = document.errors;
  if (fault) throw new KeysFileError(file, `is not YAML (line ${fault.linePos?.[0].line ?? "?"})`);
  return document;
}

function recordsOf(file: string, document: Document): ApiKeyRecord[] {
  const result = content.safeParse(document.toJS() ?? {});
  if (result.success) return result.data.keys ?? [];
  const faults = result.error.issues.map(({ path, message }) => `${path.join(".") || "the file"}: ${message}`);
  throw new KeysFileError(file, `is not a list of API keys: ${faults.join("; ")}`);
}

function replace(file: string, text: string): void {
  const draft = `${file}.${process.pid}.tmp`;
  const handle = openSync(draft, "w", 0o600);
  try {
    writeSync(handle, text);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  // The mode given to open is narrowed by the umask but does not touch a draft that an interrupted run left behind.
  chmodSync(draft, 0o600);
  renameSync(draft, file);
}

async function lock(path: string): Promise<() => void> {
  const giveUpAt = performance.now() + 5000;
  for (;;) {
    try {
      closeSync(openSync(path, "wx", 0o600));
      return () => rmSync(path, { force: true });
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw new KeysFileError(path, `cannot be made (${codeOf(error)})`);
      if (performance.now() > giveUpAt) {
        throw new KeysFileError(
          path,
          "is there: another `holdfast keys` is at work, or one was interrupted; then delete it",
        );
      }
      await delay(20);
    }
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

function hasCode(error: unknown, code: string): boolean {
  return codeOf(error) === code;
}
