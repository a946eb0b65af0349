import { afterAll, beforeAll, describe, expect, it, type TestContext } from "vitest";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import {
  aimedAt,
  type Outcome,
  runBash,
  runCsharp,
  runPython,
  runRust,
  runTypeScript,
  typeErrors,
  whyNotRun,
} from "./run-snippet.ts";
import { readDocument, type Snippet, snippetsOf } from "./snippet.ts";

const readme = readDocument("README.md");
const snippets = snippetsOf(readme);

let server: HoldfastProcess;
beforeAll(async () => {
  server = await startHoldfast();
});
afterAll(() => server.stop());

async function runSnippet({ language }: Snippet, code: string, test: TestContext): Promise<Outcome> {
  switch (language) {
    case "bash":
      return runBash(code);
    case "typescript":
      return runTypeScript(code);
    case "python":
      return runPython(code);
    case "csharp":
      return runCsharp(code);
    case "rust": {
      const outcome = await runRust(code);
      return outcome === "unreachable" ? test.skip("crates cannot be downloaded here") : outcome;
    }
    default:
      throw new Error(`nothing here runs ${language}`);
  }
}

describe("README.md", () => {
  it("starts with two commands and a call, within 25 lines", () => {
    const start = readme.split("\n").slice(0, 25).join("\n");
    expect(start).toContain("git clone");
    expect(start).toContain("make run");
    expect(snippetsOf(start).some(({ code, skip }) => skip === undefined && code.includes("CacheService"))).toBe(true);
  });

  it("has a call in each language", () => {
    const languages = new Set(snippets.map(({ language }) => language));
    expect([...languages]).toEqual(expect.arrayContaining(["bash", "typescript", "python", "csharp", "rust"]));
    expect(snippets.filter(({ skip, expected }) => skip === undefined && expected.length === 0)).toEqual([]);
  });

  for (const snippet of snippets) {
    const { language, line, expected, code } = snippet;
    const missing = whyNotRun(snippet);
    const name = `says what really happens in its ${language} of line ${line}`;
    it.skipIf(missing !== undefined)(missing === undefined ? name : `${name} (skipped: ${missing})`, async (test) => {
      const outcome = await runSnippet(snippet, aimedAt(server, code), test);
      for (const text of expected) expect(outcome.output).toContain(text);
      expect(outcome.code).toBe(0);
    });
  }

  it("shows TypeScript that the compiler takes", async () => {
    const programs = snippets.filter(({ language }) => language === "typescript");
    for (const { code } of programs) expect(await typeErrors(code)).toBe("");
  });

  it("is right about .NET as far as the wire goes: a body in chunks, a charset beside the type", async () => {
    const reply = await fetch(`${server.httpUrl}/holdfast.v1.CacheService/Get`, {
      method: "POST",
      headers: { "content-type": "application/json; charset=utf-8" },
      body: new Blob(['{"key":"nobody set this"}']).stream(),
      duplex: "half",
    });
    expect(await reply.json()).toEqual({ outcome: "CACHE_OUTCOME_MISS" });
  });
});

const EXAMPLES: readonly [string, RegExp][] = [
  ["examples/cache.ts", /^hello from TypeScript version \d+n$/m],
  ["examples/conversation.ts", /^2 steps and 2 messages at version \d+n$/m],
  ["examples/lock.ts", /^the lock is free again$/m],
  ["examples/ratelimit.ts", /^5 of 8 were let in$/m],
];

describe.each(EXAMPLES)("%s", (path, said) => {
  it("is named here, and does what it is for", async () => {
    expect(readme).toContain(`(${path})`);
    const { output, code } = await runBash(`node ${path}`, { HOLDFAST_URL: `http://${server.grpcAddress}` });
    expect(output).toMatch(said);
    expect(code).toBe(0);
  });
});
