import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../../src/config.ts";
import { scratchDirectory } from "../support/scratch.ts";

export const directory = scratchDirectory("config");
export const pem = join(directory.path, "some.pem");
writeFileSync(pem, "");

/** A setting, and what may and may not be written for it. */
export interface SettingRow {
  readonly env?: string;
  readonly path: string;
  /** Written in the environment, and what comes of it. */
  readonly good: readonly (readonly [written: string, value: unknown])[];
  readonly bad: readonly string[];
  /** Written in the file as YAML. */
  readonly goodInFile: readonly (readonly [written: string, value: unknown])[];
  readonly badInFile: readonly string[];
  readonly value: (config: Config) => unknown;
  /** What must be set too for the setting to be right or to show. */
  readonly beside?: Readonly<Record<string, string>>;
}

export const port = {
  good: [
    ["0", 0],
    ["65535", 65535],
    [" 8080 ", 8080],
  ],
  bad: ["-1", "65536", "http", "1.5", "0x10", "1e3"],
  goodInFile: [["8080", 8080]],
  badInFile: ["65536", '"8080"', "1.5", "true", "[1]", "{a: 1}"],
} as const;
export const flag = {
  good: [
    ["true", true],
    ["false", false],
  ],
  bad: ["yes", "1", "TRUE"],
  goodInFile: [["true", true]],
  badInFile: ['"true"', "1", "yes"],
} as const;
export const milliseconds = {
  good: [
    ["1500", 1500],
    ["2s", 2000],
    ["1m", 60_000],
  ],
  bad: ["-1", "1.5.2s", "soon", "5 parsecs", "99999999999999"],
  goodInFile: [
    ["2s", 2000],
    ["1500ms", 1500],
  ],
  badInFile: ["1500", "soon", "true", "-2s"],
} as const;
export const seconds = {
  good: [
    ["3600", 3_600_000],
    ["300ms", 300],
    ["1h", 3_600_000],
    ["0.5s", 500],
  ],
  bad: ["-1", "1x", "999999999999"],
  goodInFile: [
    ["5m", 300_000],
    ["90d", 7_776_000_000],
  ],
  badInFile: ["300", "4000d", "[]"],
} as const;
export const file = {
  good: [[pem, pem]],
  bad: ["/no/such/file.pem", directory.path],
  goodInFile: [[JSON.stringify(pem), pem]],
  badInFile: ["/no/such/file.pem", "7"],
} as const;
export const count = {
  good: [["7", 7]],
  bad: ["0", "-1", "many", "1.5"],
  goodInFile: [["7", 7]],
  badInFile: ["0", '"7"', "many"],
} as const;
/** Milliseconds, where a number without its unit would be a guess. */
export const unmistakable = {
  good: [["2h", 7_200_000]],
  bad: ["86400", "-1", "soon", "99999d"],
  goodInFile: [["36h", 129_600_000]],
  badInFile: ["86400", "soon", "true"],
} as const;
export const expiry = {
  good: [
    ["sliding", true],
    ["fixed", false],
  ],
  bad: ["true", "Fixed"],
  goodInFile: [["fixed", false]],
  badInFile: ["true", "slides"],
} as const;
export const history = {
  good: [
    ["0", 0],
    ["1000", 1000],
  ],
  bad: ["-1", "1001", "all"],
  goodInFile: [["10", 10]],
  badInFile: ["1001", '"10"'],
} as const;
export const tlsPair = { HOLDFAST_TLS_CERT: pem, HOLDFAST_TLS_KEY: pem };
export const postgres = { DATABASE_URL: "postgres://h/db" };
export const redis = { REDIS_URL: "redis://h" };
export const redisTls = { REDIS_URL: "rediss://h", REDIS_TLS_CERT: pem, REDIS_TLS_KEY: pem };
export const ofAll = ({ conversation }: Config) => conversation.policies.fallback;
export const ofPostgres = (config: Config) => (config.database.kind === "postgres" ? config.database : undefined);
