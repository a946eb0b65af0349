import { relative } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import type { Shown } from "../../src/config/kind.ts";
import { resolveConfig } from "../../src/config.ts";
import { readDocument, snippetsOf, tableRows } from "./snippet.ts";

const page = readDocument("docs/configuration.md");
const { effective } = resolveConfig({}, undefined);

/** A default as the page writes it: paths from the working directory, where the server looks. */
function written(value: Shown | undefined): string {
  if (value === undefined) return "not set";
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.join(", ");
  const text = String(value);
  return `\`${text.startsWith(process.cwd()) ? relative(process.cwd(), text) : text}\``;
}

describe("docs/configuration.md", () => {
  const rows = tableRows(page).filter(([variable]) => variable !== "variable");

  it("has every setting with its variable, its place in the file and its default, and none that is not there", () => {
    const settings = effective.map(({ env, path, value }) => [
      env === undefined ? "none" : `\`${env}\``,
      `\`${path.join(".")}\``,
      written(value),
    ]);
    expect(rows.map((row) => row.slice(0, 3)).toSorted()).toEqual(settings.toSorted());
  });

  it("says of each what it does", () => {
    expect(rows.filter(([, , , what = ""]) => !/[.]$/.test(what))).toEqual([]);
  });
});

describe.each(["docs/configuration.md", "docs/cache.md", "docs/operations.md"])("the files shown in %s", (name) => {
  const files = snippetsOf(readDocument(name)).filter(({ language }) => language === "yaml");

  it("are taken by the server", () => {
    for (const { code, skip } of files) {
      if (skip === undefined) resolveConfig({}, { name: "holdfast.yaml", content: parse(code) });
    }
  });
});
