import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { documents, readDocument, root, tableRows } from "./snippet.ts";

const pages = documents();
const makefile = readFileSync(join(root, "Makefile"), "utf8");
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };

/** What a heading is called in a link, as GitHub makes it. */
function anchors(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, title = ""]) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

describe.each(pages)("%s", (page) => {
  const text = readDocument(page);
  const prose = text.replaceAll(/^```[\s\S]*?^```$/gm, "");

  it("links only to what is there", () => {
    const broken = [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, target = ""]) => target)
      .filter((target) => !/^https?:/.test(target))
      .filter((target) => {
        const [path = "", anchor] = target.split("#", 2);
        const file = path === "" ? page : join(dirname(page), path);
        if (!existsSync(join(root, file))) return true;
        return anchor !== undefined && !anchors(readDocument(file)).includes(anchor);
      });
    expect(broken).toEqual([]);
  });

  it("names only files that are there", () => {
    const named = [...prose.matchAll(/`((?:src|test|proto|docs|scripts|examples|bench)\/[\w./-]*)`/g)];
    expect(named.map(([, path = ""]) => path).filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  it("names only commands that there are", () => {
    const targets = [...text.matchAll(/`make ([a-z-]+)/g)].map(([, name = ""]) => name);
    expect(targets.filter((name) => !new RegExp(`^${name}:`, "m").test(makefile))).toEqual([]);
    const runs = [...text.matchAll(/`npm run ([a-z:-]+)/g)].map(([, name = ""]) => name);
    expect(runs.filter((name) => !(name in scripts))).toEqual([]);
  });
});

describe("docs/decisions", () => {
  const decisions = pages.filter((page) => /decisions\/\d{4}-/.test(page));

  it("are numbered without a gap, and listed", () => {
    const list = tableRows(readDocument("docs/decisions/README.md"));
    const numbers = decisions.map((page) => Number(/\d{4}/.exec(page)?.[0]));
    expect(numbers).toEqual(numbers.map((_, i) => i + 1));
    for (const page of decisions) {
      const [, number, title] = /^# (\d+)\. (.+)$/m.exec(readDocument(page)) ?? [];
      expect(list).toContainEqual([`[${number}](${page.split("/").at(-1)})`, title]);
    }
  });

  it("are short, and have a question and an answer", () => {
    for (const page of decisions) {
      const text = readDocument(page);
      expect([page, text.split("\n").length <= 40]).toEqual([page, true]);
      expect(text).toContain("**Question.**");
      expect(text).toMatch(/^\*\*Answer\b/m);
    }
  });
});
