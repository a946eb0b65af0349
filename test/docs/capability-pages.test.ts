import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { aimedAt, runBash, runTypeScript, typeErrors, whyNotRun } from "./run-snippet.ts";
import { readDocument, root, snippetsOf, tableRows } from "./snippet.ts";

/** The pages, and with which settings they are tried. */
const PAGES: readonly [string, Readonly<Record<string, string>>][] = [
  ["docs/cache.md", {}],
  ["docs/audit.md", {}],
  ["docs/conversation.md", { CONVERSATION_HISTORY: "10" }],
  ["docs/ratelimit.md", { HOLDFAST_CONFIG: join(root, "examples/holdfast.yaml") }],
  ["docs/lock.md", {}],
  ["docs/dedup.md", {}],
];

describe.each(PAGES)("%s", (name, settings) => {
  const page = readDocument(name);
  const snippets = snippetsOf(page).filter(({ language }) => language === "typescript");
  const program = snippets.map(({ code }) => code).join("\n");

  let server: HoldfastProcess;
  beforeAll(async () => {
    server = await startHoldfast(settings);
  });
  afterAll(() => server.stop());

  it("is a program that does what its comments say", async () => {
    const { output, code } = await runTypeScript(aimedAt(server, program));
    for (const text of snippets.flatMap(({ expected }) => expected)) expect(output).toContain(text);
    expect(code).toBe(0);
  });

  it("is a program that the compiler takes", async () => {
    expect(await typeErrors(program)).toBe("");
  });

  for (const snippet of snippetsOf(page)) {
    const { language, line, code, expected } = snippet;
    if (language !== "bash") continue;
    const missing = whyNotRun(snippet);
    const title = `shows commands in line ${line} that do what it says`;
    it.skipIf(missing !== undefined)(missing === undefined ? title : `${title} (skipped: ${missing})`, async () => {
      const outcome = await runBash(aimedAt(server, code));
      for (const text of expected) expect(outcome.output).toContain(text);
      expect(outcome.code).toBe(0);
    });
  }

  it("names only reasons that errors really carry", () => {
    const paths = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" });
    const sources = paths.filter((path) => path.endsWith(".ts") && !path.startsWith("gen"));
    const source = sources.map((path) => readFileSync(join(root, "src", path), "utf8")).join("\n");
    const reasons = tableRows(page).flatMap(([cell = ""]) => /^`([A-Z_]+)`$/.exec(cell)?.[1] ?? []);
    expect(reasons.length).toBeGreaterThan(5);
    expect(reasons.filter((reason) => !source.includes(`"${reason}"`))).toEqual([]);
  });
});
