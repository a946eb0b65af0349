import { addAbortSignal } from "node:stream";
import { idIn, isDocument } from "./conversation-document.ts";
import { type Item, isEntry, itemOf, loadItem, type Naming, rawBytes, rawItem } from "./conversation-item.ts";
import { isObject, kindOf, namesOf, type Parsed, type ParsedObject, parseExactly, Unfit } from "./conversation-json.ts";
import { type ConversationSource, checkSize, MOST_BYTES, type Place, utf8Of } from "./conversation-source.ts";
import { contentsOf, type Line, linesIn } from "./lines.ts";
import { repeatedNames } from "./repeated-names.ts";
import { createReread } from "./reread.ts";
import { SourceError } from "./source.ts";

export interface ConversationFileOptions extends Naming {
  /** "-": what comes in from the standard input. */
  readonly path: string;
  /** Whether the user named one collection: then keys without a prefix are ids in it. */
  readonly keysAreIds: boolean;
  /** Aborted when nobody waits any more for what a pipe is to bring. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * The documents in a file or a pipe: one JSON object by key; or a list, or JSON lines, of documents with their id inside or of objects
 * {key, value, ttl}, as a script makes them of a Redis. A value may be the JSON text that Redis held.
 */
export async function openConversationFile(given: ConversationFileOptions): Promise<ConversationSource> {
  const isStdin = given.path === "-";
  const options = { ...given, path: isStdin ? "stdin" : given.path };
  const { path } = options;
  const stream = isStdin ? process.stdin : contentsOf(path);
  if (options.signal !== undefined) addAbortSignal(options.signal, stream);
  const reread = createReread(stream);
  const items = await reading(path, async () =>
    (await looksLikeLines(reread.look())) ? undefined : itemsIn(reread.all(), options),
  );
  return {
    name: path,
    remarks: [],
    total: items?.length,
    mayRepeat: true,
    isAlive: false,
    places: () => (items === undefined ? placesInLines(reread.all(), options) : placesOf(items, options)),
    close: async () => void stream.destroy(),
  };
}

async function reading<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof SourceError) throw error;
    if (error instanceof Unfit) throw new SourceError(`${path} ${error.message}`, error);
    throw new SourceError(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

/** Several objects, a line each; one of the first two may be damaged. */
async function looksLikeLines(pieces: AsyncIterable<Buffer>): Promise<boolean> {
  const first: string[] = [];
  for await (const line of linesIn(pieces, MOST_BYTES)) {
    if (!isBlank(line)) first.push(textOf(line));
    if (first.length === 2) break;
  }
  return first.length === 2 && !first[0]?.trimStart().startsWith("[") && first.some(isObjectText);
}

/** As far as it is text. */
function textOf({ bytes }: Line): string {
  return new TextDecoder().decode(bytes);
}

function isBlank(line: Line): boolean {
  const { bytes } = line;
  return bytes !== undefined && bytes.length < BLANK_BYTES && textOf(line).trim() === "";
}

/** What is longer is not looked through for that. */
const BLANK_BYTES = 1000;

function isObjectText(text: string): boolean {
  try {
    return isObject(parseExactly(text));
  } catch (error) {
    if (error instanceof Unfit) return false;
    throw error;
  }
}

interface PlacedItem extends Item {
  readonly where: string;
  /** Why it cannot be told what it is. */
  readonly fault?: Unfit;
}

async function itemsIn(
  pieces: AsyncIterable<Buffer>,
  options: ConversationFileOptions,
): Promise<readonly PlacedItem[]> {
  const { path } = options;
  const text = utf8Of(await wholeOf(pieces, path));
  const value = parseExactly(text);
  if (isObject(value)) return itemsByKey(value, text, options);
  if (typeof value !== "object" || value === null) throw new Unfit("UNKNOWN_LAYOUT", `holds ${kindOf(value)}`);
  return value.map((one, at) => ({ ...itemOf(one), where: `${path}[${at}]` }));
}

async function wholeOf(pieces: AsyncIterable<Buffer>, path: string): Promise<Buffer> {
  const all: Buffer[] = [];
  let bytes = 0;
  for await (const piece of pieces) {
    bytes += piece.length;
    if (bytes > MOST_BYTES) {
      throw new SourceError(
        `${path} is too large to be read at once. Make JSON lines of it, such as with ` +
          "`jq -c 'to_entries[] | {key, value}'` of an object by key, or `jq -c '.[]'` of a list",
      );
    }
    all.push(piece);
  }
  return Buffer.concat(all);
}

function itemsByKey(value: ParsedObject, text: string, options: ConversationFileOptions): readonly PlacedItem[] {
  const { path, prefixes, keysAreIds } = options;
  const members = Object.entries(value);
  const isByKey = members.some(([key]) => prefixes.some(({ prefix }) => key.startsWith(prefix)));
  const isOne = isEntry(value) || isDocument(value) || idIn(value) !== undefined;
  if (!isByKey && isOne) return [{ ...itemOf(value), where: path }];
  if (!isByKey && !keysAreIds && members.length > 0) {
    const wanted = prefixes.map(({ prefix }) => `${prefix}...`).join(" or ");
    throw new SourceError(
      `${path} is an object with ${namesOf(value)}: none of these is a key ${wanted}, and it is no document itself. ` +
        "If they are ids, say of which collection, such as with --collection conversation",
    );
  }
  const repeated = repeatedNames(text);
  const before = isByKey ? "" : (prefixes[0]?.prefix ?? "");
  return members.map(([key, one]) => ({
    ...{ where: key, key: `${before}${key}`, value: one, ttl: undefined },
    ...(repeated.has(key) && { fault: new Unfit("NAMED_TWICE", "stands in the file more than once: which is meant?") }),
  }));
}

async function* placesOf(items: readonly PlacedItem[], naming: Naming): AsyncGenerator<Place> {
  for (const item of items) yield placeOf(item, naming);
}

function placeOf(item: PlacedItem, naming: Naming): Place {
  return {
    where: item.where,
    bytes: async () => 0, // It is in memory already.
    async load() {
      if (item.fault !== undefined) throw item.fault;
      return loadItem(item, naming);
    },
    raw: () => rawItem(item),
  };
}

async function* placesInLines(pieces: AsyncIterable<Buffer>, options: ConversationFileOptions): AsyncGenerator<Place> {
  const { path } = options;
  try {
    for await (const line of linesIn(pieces, MOST_BYTES)) {
      if (!isBlank(line)) yield placeInLine(line, path, options);
    }
  } catch (error) {
    throw new SourceError(
      `${path} cannot be read to its end: ${error instanceof Error ? error.message : error}`,
      error,
    );
  }
}

function placeInLine({ bytes, number, ended }: Line, path: string, naming: Naming): Place {
  const where = `${path}:${number}`;
  let item: Item | undefined;
  return {
    where,
    bytes: async () => checkSize(bytes?.length ?? MOST_BYTES + 1),
    async load() {
      const parsed = parseLine(bytes ?? Buffer.alloc(0), ended);
      item = itemOf(parsed);
      return loadItem(item, naming);
    },
    raw: () => (item !== undefined ? rawItem(item) : bytes !== undefined ? rawBytes(bytes) : {}),
  };
}

function parseLine(bytes: Buffer, ended: boolean): Parsed {
  try {
    return parseExactly(utf8Of(bytes));
  } catch (error) {
    if (ended || !(error instanceof Unfit) || error.reason !== "NOT_JSON") throw error;
    throw new Unfit("NOT_JSON", "is not JSON: the last line, torn off");
  }
}
