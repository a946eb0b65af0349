import { readFileSync } from "node:fs";
import { z } from "zod";

/** This build's version. package.json stands two levels up, both from src/cli and from dist/cli. */
export const version = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"))).version;
