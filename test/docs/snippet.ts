import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dirname, "../..");

/** A fenced block of a document. */
export interface Snippet {
  readonly language: string;
  readonly code: string;
  readonly line: number;
  /** What must be in its output: the text behind each `-> ` comment. */
  readonly expected: readonly string[];
  /** Why it is not run here: ```bash skip="needs Docker". */
  readonly skip: string | undefined;
}

const fence = /^```(\w+)([^\n]*)\n([\s\S]*?)^```$/gm;
const expectation = /(?:#|\/\/) -> (.+)$/gm;

export function snippetsOf(markdown: string): Snippet[] {
  return [...markdown.matchAll(fence)].map(({ 1: language = "", 2: info = "", 3: code = "", index }) => ({
    language,
    code,
    line: markdown.slice(0, index).split("\n").length,
    expected: [...code.matchAll(expectation)].map(([, text = ""]) => text.trim()),
    skip: /skip="([^"]+)"/.exec(info)?.[1],
  }));
}

/** Paths of the documents that people read, from the project's directory. */
export function documents(): string[] {
  const inside = readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" });
  const pages = inside.filter((path) => path.endsWith(".md")).map((path) => join("docs", path));
  return ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "proto/README.md", ...pages.sort()];
}

export function readDocument(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

/** The rows of every table of a document, as the texts of their cells. */
export function tableRows(markdown: string): string[][] {
  return markdown
    .split("\n")
    .filter((line) => /^\|(?! ?-)/.test(line))
    .map((line) =>
      line
        .slice(1, line.lastIndexOf("|"))
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim()),
    );
}
