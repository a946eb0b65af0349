import { readFileSync } from "node:fs";

/** This build's version. package.json stands two levels up, both from src/cli and from dist/cli. */
export const version = read(JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")));

function read(manifest: unknown): string {
  const found =
    typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : undefined;
  if (typeof found !== "string") throw new Error("package.json names no version");
  return found;
}
