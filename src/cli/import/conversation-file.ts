import { statSync } from "node:fs";
import { buffer } from "node:stream/consumers";
import { isDocument } from "./conversation-document.ts";
import { type Item, isEntry, itemOf, loadItem, type Naming, rawItem } from "./conversation-item.ts";
import { isObject, kindOf, namesOf, type Parsed, type ParsedObject, parseExactly, Unfit } from "./conversation-json.ts";
import { type ConversationSource, checkSize, MOST_BYTES, namedBy, type Place, utf8Of } from "./conversation-source.ts";
import { contentsOf, type Line, linesOf } from "./lines.ts";
import { SourceError } from "./source.ts";

export interface ConversationFileOptions extends Naming {
  readonly path: string;
  /** Whether the user named one collection: then keys without a prefix are ids in it. */
  readonly keysAreIds: boolean;
}

/**
 * The documents in a file: one JSON object by key; or a list, or JSON lines, of documents with their id inside or of objects
 * {key, value, ttl}, as a script makes them of a Redis. A value may be the JSON text that Redis held.
 */
export async function openConversationFile(options: ConversationFileOptions): Promise<ConversationSource> {
  const { path } = options;
  const isInLines = await reading(path, () => looksLikeLines(path));
  const items = isInLines ? undefined : await reading(path, () => itemsIn(options));
  return {
    name: path,
    remarks: [],
    total: items?.length,
    isAlive: false,
    places: () => (items === undefined ? placesInLines(options) : placesOf(items, options)),
    close: async () => {},
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
async function looksLikeLines(path: string): Promise<boolean> {
  const first: string[] = [];
  for await (const line of linesOf(path, MOST_BYTES)) {
    if (!isBlank(line)) first.push(line.bytes?.toString() ?? "");
    if (first.length === 2) break;
  }
  return first.length === 2 && !first[0]?.trimStart().startsWith("[") && first.some(isObjectText);
}

function isBlank({ bytes }: Line): boolean {
  return bytes !== undefined && bytes.length < BLANK_BYTES && bytes.toString("latin1").trim() === "";
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
}

async function itemsIn(options: ConversationFileOptions): Promise<readonly PlacedItem[]> {
  const { path } = options;
  if (statSync(path).size > MOST_BYTES) {
    throw new SourceError(
      `${path} is too large to be read at once. Make JSON lines of it, such as with ` +
        "`jq -c 'to_entries[] | {key, value}'` of an object by key, or `jq -c '.[]'` of a list",
    );
  }
  const value = parseExactly(utf8Of(await buffer(contentsOf(path))));
  if (isObject(value)) return itemsByKey(value, options);
  if (typeof value !== "object" || value === null) throw new Unfit("UNKNOWN_LAYOUT", `holds ${kindOf(value)}`);
  return value.map((one, at) => ({ ...itemOf(one), where: `${path}[${at}]` }));
}

function itemsByKey(value: ParsedObject, options: ConversationFileOptions): readonly PlacedItem[] {
  const { path, prefixes, keysAreIds } = options;
  const byKey = Object.entries(value).map(([key, one]) => ({ where: key, key, value: one, ttl: undefined }));
  if (byKey.length === 0 || byKey.some(({ key }) => namedBy(key, prefixes) !== undefined)) return byKey;
  if (isEntry(value) || isDocument(value)) return [{ ...itemOf(value), where: path }];
  if (keysAreIds) return byKey.map((item) => ({ ...item, key: `${prefixes[0]?.prefix ?? ""}${item.key}` }));
  const wanted = prefixes.map(({ prefix }) => `${prefix}...`).join(" or ");
  throw new SourceError(
    `${path} is an object with ${namesOf(value)}: none of these is a key ${wanted}, and it is no document itself. ` +
      "If they are ids, say of which collection, such as with --collection conversation",
  );
}

async function* placesOf(items: readonly PlacedItem[], naming: Naming): AsyncGenerator<Place> {
  for (const item of items) yield placeOf(item, naming);
}

function placeOf(item: PlacedItem, naming: Naming): Place {
  return {
    where: item.where,
    bytes: async () => 0, // It is in memory already.
    load: async () => loadItem(item, naming),
    raw: () => rawItem(item),
  };
}

async function* placesInLines(options: ConversationFileOptions): AsyncGenerator<Place> {
  const { path } = options;
  try {
    for await (const line of linesOf(path, MOST_BYTES)) {
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
    raw: () => (item === undefined ? { value: bytes?.toString() } : rawItem(item)),
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
