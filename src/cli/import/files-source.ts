import { readdirSync, statSync } from "node:fs";
import { basename, join, relative, resolve } from "node:path";
import { producerFor, sequenceOfText } from "./identity.ts";
import { type Line, linesOf, MOST_BYTES } from "./lines.ts";
import type { Mapping } from "./roles.ts";
import {
  checkMapped,
  type Likeness,
  likenessOf,
  likenessOfAll,
  remarkOf,
  type Source,
  SourceError,
  type SourceRow,
  shown,
} from "./source.ts";

export interface FilesSourceOptions {
  /** A directory, or one file. */
  readonly path: string;
  readonly mapping: Mapping;
}

/** So many lines of each file are looked at to tell what it holds. */
const SAMPLES = 1000;

/**
 * JSON lines in files that may grow, be rotated and be copied: a record is known by what its line says, wherever the line stands,
 * and the same line again in the same file is another record.
 */
export async function openFilesSource({ path, mapping }: FilesSourceOptions): Promise<Source> {
  const { files, leftOut } = filesOf(path);
  const looks: Look[] = [];
  for (const file of files) looks.push(await inspect(file, mapping));
  checkMapped(likenessOfAll(looks.map((look) => look.likeness)), mapping);
  const likeness = likenessOfAll(looks.filter(({ fault }) => fault === undefined).map((look) => look.likeness));
  const faults = looks.flatMap(({ fault, file }) => (fault === undefined ? [] : [`${file.path} ${fault}`]));
  // One file that is of another kind is refused by itself; where all are, nothing is begun.
  if (faults.length > 0 && likeness.score === 0) throw new SourceError(faults.join("\n"));
  return {
    name: files.length === 1 ? (files[0]?.path ?? path) : `${files.length} files in ${path}`,
    producer: producerFor(basename(resolve(path))),
    remarks: [
      likeness.score === 0 ? "there is no record in it" : remarkOf(likeness),
      ...(leftOut.length === 0 ? [] : [`left out, because hidden or no files: ${leftOut.join(", ")}`]),
    ],
    likeness,
    isTimed: false,
    total: undefined,
    passedOver: () => 0,
    async *rows() {
      for (const { file, fault } of looks) {
        if (fault === undefined) yield* rowsOf(file);
        else yield refusedAs(file.name, `the whole file is refused: it ${fault}`);
      }
    },
    close: async () => {},
  };
}

interface SourceFile {
  readonly path: string;
  /** From where the import was told to look. */
  readonly name: string;
}

interface Look {
  readonly file: SourceFile;
  readonly likeness: Likeness;
  /** Why nothing of it is imported. */
  readonly fault: string | undefined;
}

/** All files below a directory, in the order of their names. */
function filesOf(path: string): { readonly files: readonly SourceFile[]; readonly leftOut: readonly string[] } {
  try {
    if (!statSync(path).isDirectory()) return { files: [{ path, name: basename(path) }], leftOut: [] };
    const paths: string[] = [];
    const leftOut: string[] = [];
    const walk = (directory: string) => {
      for (const entry of readdirSync(directory, { withFileTypes: true })) {
        const found = join(directory, entry.name);
        // A link may lead to a file, but not to a directory: that could go round in circles.
        const isFile =
          entry.isFile() || (entry.isSymbolicLink() && statSync(found, { throwIfNoEntry: false })?.isFile());
        if (entry.name.startsWith(".") || !(isFile || entry.isDirectory())) leftOut.push(relative(path, found));
        else if (isFile) paths.push(found);
        else walk(found);
      }
    };
    walk(path);
    if (paths.length === 0) throw new SourceError(`${path} has no files`);
    return {
      files: paths.toSorted().map((found) => ({ path: found, name: relative(path, found) })),
      leftOut: leftOut.toSorted(),
    };
  } catch (error) {
    if (error instanceof SourceError) throw error;
    throw new SourceError(`${path} cannot be read: ${messageOf(error)}`, error);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An empty file is like nothing, and no fault. */
async function inspect(file: SourceFile, mapping: Mapping): Promise<Look> {
  const samples: Readonly<Record<string, unknown>>[] = [];
  let first: Line | undefined;
  let fault: string | undefined;
  try {
    for await (const line of linesOf(file.path)) {
      if (isBlank(line)) continue;
      first ??= line;
      const { fields } = read(line);
      if (fields !== undefined) samples.push(fields);
      if (line.number >= SAMPLES) break;
    }
  } catch (error) {
    // What could be read of a damaged file is imported, and then it is said where it breaks off.
    if (samples.length === 0) fault = `cannot be read: ${messageOf(error)}`;
  }
  const likeness = likenessOf(samples, mapping);
  if (first !== undefined) fault ??= faultOf(first, samples.length, likeness);
  return { file, likeness, fault };
}

function faultOf(first: Line, samples: number, { score }: Likeness): string | undefined {
  const text = first.bytes?.toString().trim() ?? "";
  const begin = `Its first line: ${shown(text)}`;
  if (text === "[" || (samples === 0 && text.startsWith("["))) {
    return `is one JSON array, not JSON lines (an object a line); \`jq -c '.[]'\` makes such of it. ${begin}`;
  }
  if (samples === 0 && text === "{") {
    return `has JSON over several lines, not an object a line; \`jq -c .\` makes such of it. ${begin}`;
  }
  if (samples === 0) return `is not made of JSON lines (an object a line). ${begin}`;
  if (score > 0) return undefined;
  return (
    "has records that do not look like audit records; --map says which field is which, such as --map actor=who. " +
    begin
  );
}

async function* rowsOf(file: SourceFile): AsyncGenerator<SourceRow> {
  const seen = new Map<number, number>();
  try {
    for await (const line of linesOf(file.path)) {
      if (isBlank(line)) continue;
      const where = `${file.name}:${line.number}`;
      const content = sequenceOfText(line.bytes ?? where);
      const times = seen.get(content) ?? 0;
      seen.set(content, times + 1);
      const sequence = times === 0 || line.bytes === undefined ? content : sequenceOfText(`${content} again ${times}`);
      yield { where, sequence, ...read(line), raw: line.bytes?.toString() };
    }
  } catch (error) {
    yield refusedAs(file.name, `cannot be read to its end: ${messageOf(error)}`);
  }
}

function refusedAs(where: string, fault: string): SourceRow {
  return { where, sequence: sequenceOfText(where), fields: undefined, fault, raw: undefined };
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
