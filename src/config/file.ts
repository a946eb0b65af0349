import { readFileSync } from "node:fs";
import { ConfigError } from "./mistakes.ts";

export interface ConfigFile {
  readonly name: string;
  readonly content: unknown;
}

/**
 * Reads holdfast.yaml. A file that was named must be there; the one in the working directory is optional. What the parser
 * says is reported by code and place only: its messages quote lines, and a line may hold a password.
 */
export async function readConfigFile(named: string | undefined): Promise<ConfigFile | undefined> {
  const name = named ?? "holdfast.yaml";
  let source: string;
  try {
    source = readFileSync(name, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    if (named === undefined && code === "ENOENT") return undefined;
    throw new ConfigError([{ where: name, what: `cannot be read (${code})` }]);
  }
  // Not loaded where there is no file: it would cost start-up time and memory for nothing.
  const { parseDocument } = await import("yaml");
  const document = parseDocument(source, { prettyErrors: true, logLevel: "silent" });
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    throw new ConfigError(
      faults.map(({ code, linePos }) => {
        const [start] = linePos ?? [];
        const place = start ? `, line ${start.line}, column ${start.col}` : "";
        return {
          where: `${name}${place}`,
          what: `is not YAML as it should be (${code.toLowerCase().replaceAll("_", " ")})`,
        };
      }),
    );
  }
  return { name, content: document.toJS({ maxAliasCount: 100 }) };
}
