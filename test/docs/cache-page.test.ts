import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { aimedAt, runTypeScript } from "./run-snippet.ts";
import { readDocument, snippetsOf } from "./snippet.ts";

let server: HoldfastProcess;
beforeAll(async () => {
  server = await startHoldfast();
});
afterAll(() => server.stop());

describe("docs/cache.md", () => {
  it("is a program that does what its comments say", async () => {
    const snippets = snippetsOf(readDocument("docs/cache.md")).filter(({ language }) => language === "typescript");
    const program = snippets.map(({ code }) => code).join("\n");
    const { output, code } = await runTypeScript(aimedAt(server, program));
    for (const text of snippets.flatMap(({ expected }) => expected)) expect(output).toContain(text);
    expect(code).toBe(0);
  });
});
