import { readdirSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { producerFor, sequenceOfText } from "./identity.ts";
import { type Line, linesOf, MOST_BYTES } from "./lines.ts";
import type { Mapping } from "./roles.ts";
import { type Likeness, likeliest, remarkOf, type Source, SourceError, type SourceRow, shown } from "./source.ts";

export interface FilesSourceOptions {
  /** A directory, or one file. */
  readonly path: string;
  readonly mapping: Mapping;
}

/** So many lines of each file are looked at to tell what it holds. */
const SAMPLES = 50;

/**
 * JSON lines in files that may grow, be rotated and be copied: a record is known by what its line says, wherever the line stands,
 * and the same line again in the same file is another record.
 */
export async function openFilesSource({ path, mapping }: FilesSourceOptions): Promise<Source> {
  const files = filesOf(path);
  let likeness: Likeness = { score: 0, roles: new Map() };
  for (const file of files) {
    const found = await inspect(file, mapping);
    if (found !== undefined && found.score > likeness.score) likeness = found;
  }
  return {
    name: files.length === 1 ? (files[0] ?? path) : `${files.length} files in ${path}`,
    producer: producerFor(basename(resolve(path))),
    remarks: likeness.score === 0 ? ["there is no record in it"] : [remarkOf(likeness)],
    total: undefined,
    passedOver: () => 0,
    async *rows() {
      for (const file of files) yield* rowsOf(file);
    },
    close: async () => {},
  };
}

function filesOf(path: string): readonly string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const files = readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.name.startsWith("."))
      .map(({ name }) => join(path, name))
      .toSorted();
    if (files.length === 0) throw new SourceError(`${path} has no files`);
    return files;
  } catch (error) {
    if (error instanceof SourceError) throw error;
    throw new SourceError(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

/** Undefined for an empty file. Throws when no line at its beginning is a record. */
async function inspect(file: string, mapping: Mapping): Promise<Likeness | undefined> {
  const samples: Readonly<Record<string, unknown>>[] = [];
  let first: Line | undefined;
  try {
    for await (const line of linesOf(file)) {
      if (isBlank(line)) continue;
      first ??= line;
      const { fields } = read(line);
      if (fields !== undefined) samples.push(fields);
      if (line.number >= SAMPLES) break;
    }
  } catch (error) {
    throw new SourceError(`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`, error);
  }
  if (first === undefined) return undefined;
  const found = likeliest(samples, mapping);
  if (found.score > 0) return found;
  const begin = shown(first.bytes?.toString() ?? "");
  if (samples.length === 0) {
    throw new SourceError(
      `${file} is not made of JSON lines (an object a line). Its first line: ${begin}\nName the files that are, or move this one away.`,
    );
  }
  throw new SourceError(
    `the records in ${file} do not look like audit records; --map says which field is which, such as --map actor=who. ` +
      `Its first line: ${begin}`,
  );
}

async function* rowsOf(file: string): AsyncGenerator<SourceRow> {
  const name = basename(file);
  const seen = new Map<number, number>();
  for await (const line of linesOf(file)) {
    if (isBlank(line)) continue;
    const where = `${name}:${line.number}`;
    const content = sequenceOfText(line.bytes ?? where);
    const times = seen.get(content) ?? 0;
    seen.set(content, times + 1);
    const sequence = times === 0 || line.bytes === undefined ? content : sequenceOfText(`${content} again ${times}`);
    yield { where, sequence, ...read(line), raw: line.bytes?.toString() };
  }
}

function isBlank({ bytes }: Line): boolean {
  return bytes !== undefined && bytes.toString("latin1").trim() === "";
}

function read({ bytes, ended }: Line): Pick<SourceRow, "fields" | "fault"> {
  if (bytes === undefined) return { fields: undefined, fault: `is longer than ${MOST_BYTES} bytes` };
  try {
    const value: unknown = JSON.parse(bytes.toString());
    if (isRecord(value)) return { fields: value };
    return { fields: undefined, fault: "is JSON, but not an object" };
  } catch {
    return { fields: undefined, fault: ended ? "is not JSON" : "is not JSON: the last line, torn off" };
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
