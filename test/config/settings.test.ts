import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { ConfigError } from "../../src/config/mistakes.ts";
import { resolveConfig } from "../../src/config.ts";
import { capabilitySettings, collectionSettings, lockNameSettings, namespaceSettings } from "./capability-settings.ts";
import { serverSettings } from "./server-settings.ts";
import { storageSettings } from "./storage-settings.ts";

const rows = [...serverSettings, ...storageSettings, ...capabilitySettings];

/** Builds the file's content around one value: ("a.b", "1") is {a: {b: 1}}. */
function fileWith(path: string, written: string, beside: Readonly<Record<string, string>> = {}) {
  let content: unknown = parse(written);
  for (const step of path.split(".").reverse()) content = { [step]: content };
  return { environment: beside, file: { name: "holdfast.yaml", content } };
}

function mistakesOf(run: () => unknown): ConfigError["mistakes"] {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

describe.each(rows.filter((row) => row.env !== undefined))("$env", ({ env = "", good, bad, value, beside }) => {
  it.each(good)("takes %s", (written, expected) => {
    expect(value(resolveConfig({ ...beside, [env]: written }, undefined).config)).toEqual(expected);
  });

  it.each(bad)("refuses %j, naming the variable, what was seen and what is wanted", (written) => {
    const mistakes = mistakesOf(() => resolveConfig({ ...beside, [env]: written }, undefined));
    expect(mistakes.map(({ where }) => where)).toContain(env);
    expect(mistakes.find(({ where }) => where === env)?.what).toMatch(/^is .+, wanted .+/);
  });
});

describe.each([...rows, ...namespaceSettings, ...collectionSettings, ...lockNameSettings])(
  "$path in the file",
  (row) => {
    const { path, goodInFile, badInFile, value } = row;
    const env = "env" in row ? row.env : undefined;
    const beside = Object.fromEntries(
      Object.entries("beside" in row ? (row.beside ?? {}) : {}).filter(([name]) => name !== env),
    );

    it.each(goodInFile)("takes %s", (written, expected) => {
      const { environment, file: content } = fileWith(path, written, beside);
      expect(value(resolveConfig(environment, content).config)).toEqual(expected);
    });

    it.each(badInFile)("refuses %s, naming the path, what was seen and what is wanted", (written) => {
      const { environment, file: content } = fileWith(path, written, beside);
      const mistakes = mistakesOf(() => resolveConfig(environment, content));
      const mistake = mistakes.find(({ where }) => where === `holdfast.yaml: ${path}`);
      expect(mistake?.what).toMatch(/^is .+, wanted .+/);
    });
  },
);

it("has a row for every setting that the environment can hold", () => {
  const { effective } = resolveConfig({}, undefined);
  const variables = effective.flatMap(({ env }) => (env === undefined ? [] : [env]));
  expect(variables.toSorted()).toEqual(rows.flatMap(({ env }) => env ?? []).toSorted());
});
