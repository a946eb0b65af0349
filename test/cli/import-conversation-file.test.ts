import { writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { openConversationFile } from "../../src/cli/import/conversation-file.ts";
import { prefixesOf } from "../../src/cli/import/conversation-source.ts";
import { runCommand } from "../e2e/command.ts";
import { directoryPerTest } from "../support/directory-per-test.ts";
import { contents, namesIn } from "./conversation-contents.ts";

const directory = directoryPerTest("import-conversations");

describe("a file", () => {
  const path = (name = "c.json") => directory.of(name);
  const DOCUMENT = { status: "x", messages: [], _metadata: { case_id: "c-1" } };

  async function read(content: string | Buffer, collections: string[] = [], name?: string) {
    writeFileSync(path(name), content);
    const prefixes = prefixesOf(collections);
    const [first] = collections.length === 0 ? ["conversation"] : prefixes.map(({ collection }) => collection);
    const collection = collections.length > 1 ? undefined : first;
    return openConversationFile({ path: path(name), prefixes, collection, keysAreIds: collections.length === 1 });
  }

  it("may be one object by key, its values documents or their JSON", async () => {
    const text = JSON.stringify({
      "conversation:a": DOCUMENT,
      "orchestration:b": JSON.stringify({ status: "y" }),
      "session:c": DOCUMENT,
    });
    const found = await contents(await read(text));
    expect(namesIn(found)).toEqual([
      "conversation/a",
      "orchestration/b",
      'UNKNOWN_KEY: its key "session:c" begins neither with conversation: nor orchestration:; see --collection NAME=PREFIX',
    ]);
    expect(found.get("orchestration:b")).toMatchObject({ document: { status: "y" }, lifetime: undefined });
  });

  it("may be an object by id, if the collection is said", async () => {
    const text = JSON.stringify({ "id-1": { status: "x" }, "id-2": { status: "y" } });
    await expect(read(text)).rejects.toThrow(/is an object with id-1, id-2: none of these is a key conversation:/);
    expect(namesIn(await contents(await read(text, ["support=s:"])))).toEqual(["support/id-1", "support/id-2"]);
  });

  it.each([
    ["a list", (values: unknown[]) => JSON.stringify(values, undefined, 1)],
    ["JSON lines", (values: unknown[]) => `${values.map((value) => JSON.stringify(value)).join("\n\n")}\n`],
  ])("may be %s of documents with their id inside, or of keys and values", async (_, write) => {
    const found = await contents(
      await read(
        write([
          DOCUMENT,
          { case_id: 17, status: "x" },
          { key: "orchestration:o", value: JSON.stringify({ status: "y" }), ttl: 60 },
          { key: "conversation:never", value: { status: "z" }, ttl: -1 },
          { key: "conversation:over", value: { status: "z" }, ttl: -2 },
          { status: "nobody" },
          "text",
        ]),
      ),
    );
    expect(namesIn(found)).toEqual([
      "conversation/c-1",
      "conversation/17",
      "orchestration/o",
      "conversation/never",
      undefined,
      expect.stringMatching(/^NO_ID: .*it has status/),
      expect.stringMatching(/^NOT_JSON: .*begins with \\?"text/),
    ]);
    const [, , timed, never] = [...found.values()];
    expect(never).toMatchObject({ lifetime: "never" });
    if (typeof timed !== "object" || typeof timed.lifetime !== "object") throw new Error("it has no lifetime");
    expect(timed.lifetime.endsAtMs - performance.now()).toBeLessThanOrEqual(60_000);
  });

  it("may be one document, or one {key, value}", async () => {
    expect(namesIn(await contents(await read(JSON.stringify(DOCUMENT, undefined, 2))))).toEqual(["conversation/c-1"]);
    const entry = JSON.stringify({ key: "orchestration:o", value: DOCUMENT });
    expect(namesIn(await contents(await read(entry)))).toEqual(["orchestration/o"]);
  });

  it("is one document also where nothing but its id says so", async () => {
    const text = JSON.stringify({ case_id: "c-9", colour: "red" });
    expect(namesIn(await contents(await read(text, ["chat"])))).toEqual(["chat/c-9"]);
  });

  it("may begin with a byte order mark, in lines as well", async () => {
    const text = JSON.stringify(DOCUMENT);
    expect(namesIn(await contents(await read(`\ufeff${text}`)))).toEqual(["conversation/c-1"]);
    const lines = `\ufeff${text}\r\n${JSON.stringify({ case_id: "c-2", status: "x" })}\r\n`;
    expect(namesIn(await contents(await read(lines)))).toEqual(["conversation/c-1", "conversation/c-2"]);
  });

  it("that has a key twice does not say which is meant: that one is refused, and the others go on", async () => {
    const text = `{"conversation:a": {"status": "1"}, "conversation:b": {"status": "conversation:b\\": ", "x": {"conversation:b": 1}},
      "conversation:\\u0061": {"status": "2"}, "conversation:": {"status": "3"}}`;
    expect(namesIn(await contents(await read(text)))).toEqual([
      "NAMED_TWICE: stands in the file more than once: which is meant?",
      "conversation/b",
      'NO_ID: its key is the prefix "conversation:" alone: no id follows',
    ]);
  });

  it.each([
    ["by key", (text: string) => `{"conversation:c-1": ${text}}`],
    ["of lines", (text: string) => `${text}\n${text.replace("c-1", "c-2")}\n`],
  ])("may come through a pipe, %s", async (_, write) => {
    const text = write(JSON.stringify(DOCUMENT));
    writeFileSync(path(), text);
    await runCommand("mkfifo", [path("pipe")]);
    const writing = runCommand("cp", [path(), path("pipe")]);
    const options = { prefixes: prefixesOf([]), collection: "conversation", keysAreIds: false };
    const found = await contents(await openConversationFile({ ...options, path: path("pipe") }));
    await writing;
    expect(namesIn(found)).toEqual(namesIn(await contents(await read(text))));
    expect(namesIn(found)[0]).toBe("conversation/c-1");
  });

  it("of documents without keys belongs to the one collection that was named", async () => {
    const text = JSON.stringify([DOCUMENT]);
    expect(namesIn(await contents(await read(text, ["chat"])))).toEqual(["chat/c-1"]);
    expect(namesIn(await contents(await read(text, ["a", "b"])))).toEqual([expect.stringMatching(/^NO_COLLECTION/)]);
  });

  it("in lines is read on past one that is damaged, and may be packed", async () => {
    const lines = [`{"case_id": "1", "status": "x"}`, `{"case_id": "2", "status": NaN}`, `{"case_id": "3"`];
    const found = await contents(await read(gzipSync(lines.join("\n")), [], "c.jsonl.gz"));
    expect(namesIn(found)).toEqual([
      "conversation/1",
      expect.stringMatching(/^NOT_A_NUMBER/),
      "NOT_JSON: is not JSON: the last line, torn off",
    ]);
    expect([...found.keys()].map((where) => where.split(":").at(-1))).toEqual(["1", "2", "3"]);
  });

  it("takes back what was refused, once it is mended", async () => {
    const source = await read('{"conversation:a": {"status": "x", "n": 12345678901234567890}}');
    const refused: string[] = [];
    for await (const place of source.places()) {
      refused.push(JSON.stringify({ where: place.where, reason: "NUMBER_TOO_LARGE", message: "", ...place.raw() }));
    }
    expect(refused[0]).toContain("12345678901234567890");
    const mended = refused.join("\n").replace("12345678901234567890", "5");
    const found = await contents(await read(mended));
    expect([...found.values()]).toMatchObject([{ collection: "conversation", id: "a", document: { n: 5 } }]);
    // What is no text comes back as the bytes that it was, and is refused again until it is mended.
    const bytes = JSON.stringify({ where: "k", reason: "NOT_JSON", key: "conversation:b", base64: "e/99", ttl: -1 });
    expect(namesIn(await contents(await read(bytes)))).toEqual([expect.stringMatching(/^NOT_JSON.*7bff7d/)]);
    // A document that stood under no key has none there either.
    const keyless = JSON.stringify({ where: "c:1", reason: "R", message: "", value: JSON.stringify(DOCUMENT) });
    expect(namesIn(await contents(await read(`${keyless}\n${keyless}\n`)))).toEqual([
      "conversation/c-1",
      "conversation/c-1",
    ]);
  });

  it.each([
    ["", /is empty/],
    ["nonsense", /is not JSON; it begins with "nonsense"/],
    ["[1, 2", /is not JSON, or is torn off/],
    ['{"a": NaN}', /holds NaN/],
    ["5", /holds a number/],
    ['"text"', /holds a text/],
    [Buffer.from("\ufeff{}", "utf16le"), /not even UTF-8.*begins with the bytes fffe.*iconv -f UTF-16/],
    [gzipSync("{}"), /not even UTF-8.*it looks packed/],
  ])("that is nothing of the kind is told so: %j", async (content, why) => {
    await expect(read(content)).rejects.toThrow(why);
  });

  it("that is not there, or a directory, is told so", async () => {
    const options = { prefixes: prefixesOf([]), collection: undefined, keysAreIds: false };
    await expect(openConversationFile({ ...options, path: path("none") })).rejects.toThrow(/cannot be read.*ENOENT/);
    await expect(openConversationFile({ ...options, path: directory.path })).rejects.toThrow(/cannot be read.*EISDIR/);
  });
});
