import { describe, expect, it } from "vitest";
import { ConfigError } from "../../src/config/mistakes.ts";
import { type Environment, resolveConfig } from "../../src/config.ts";

/** A policy of its own has settings that no variable sets. */
const POLICIES = { cache: { namespaces: { some: {} } }, conversation: { collections: { some: {} } } };
const { effective } = resolveConfig({}, { name: "holdfast.yaml", content: POLICIES });

/** What no setting is, whether as text or in the file. */
const NONSENSE = "\0";
const MORE_NONSENSE = [[{ no: 1 }], NONSENSE];

/** By where it is, what was wrong with it. */
function mistakesOf(environment: Environment, content: unknown): readonly string[] {
  try {
    resolveConfig(environment, { name: "holdfast.yaml", content });
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes.map(({ what }) => what);
    throw error;
  }
}

function inFile(path: readonly string[], value: unknown): unknown {
  return path.reduceRight((inner, name) => ({ [name]: inner }), value);
}

/** Those that a text gives as examples of what is wanted. */
function examplesIn(what: string): readonly string[] {
  const [, wanted = ""] = /, wanted (.*)/s.exec(what) ?? [];
  const [, examples = ""] = /such as ((?:"[^"]+"(?:, or |, | or )?)+)/.exec(wanted) ?? [];
  return [...examples.matchAll(/"([^"]+)"/g)].map(([, example = ""]) => example);
}

const settings = effective.map(({ path, env }) => ({ name: path.join("."), path, env }));

describe("what a setting is told to be", () => {
  it.each(settings)("has examples for $name that are right, if any", ({ path, env }) => {
    const refused = MORE_NONSENSE.flatMap((value) => mistakesOf({}, inFile(path, value)));
    expect(refused).not.toEqual([]);
    for (const example of refused.flatMap(examplesIn)) {
      const values = [example, [example]];
      expect(
        values.some((value) => mistakesOf({}, inFile(path, value)).length === 0),
        example,
      ).toBe(true);
      if (env !== undefined) expect([example, mistakesOf({ [env]: example }, undefined)]).toEqual([example, []]);
    }
  });

  it("has an example for each duration and each size", () => {
    const without = settings.flatMap(({ name, path }) => {
      const [refused = ""] = mistakesOf({}, inFile(path, [{ no: 1 }]));
      const isRange = /wanted a (duration|size) /.test(refused);
      return isRange && examplesIn(refused).length === 0 ? [name] : [];
    });
    expect(without).toEqual([]);
  });
});
