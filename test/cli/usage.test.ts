import { describe, expect, it } from "vitest";
import { options as checkpointOptions } from "../../src/cli/checkpoint.ts";
import { options as exportOptions } from "../../src/cli/export.ts";
import { ROLES } from "../../src/cli/import/roles.ts";
import { options as importOptions } from "../../src/cli/import.ts";
import { help } from "../../src/cli/usage.ts";

describe("holdfast help", () => {
  it.each(Object.keys({ ...checkpointOptions, ...exportOptions, ...importOptions }).filter((name) => name !== "help"))(
    "lists --%s",
    (name) => expect(help).toMatch(new RegExp(`--${name}\\b(?!-)`)),
  );

  it("lists what --map and --default can be about", () => {
    for (const role of ROLES) expect(help).toMatch(new RegExp(`\\b${role}\\b`));
  });

  it("names the variables that hold what must not be typed or is set elsewhere", () => {
    for (const name of ["HOLDFAST_API_KEY", "REDIS_URL"]) expect(help).toMatch(new RegExp(`\\b${name}\\b`));
  });
});
