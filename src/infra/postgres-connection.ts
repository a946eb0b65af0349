import type { ConnectionOptions } from "node:tls";
import pg from "pg";
import { Failure } from "./failure.ts";

/** TLS to the server. True: with the system's authorities. An `sslmode` in the url says the same. */
export type PostgresTls = boolean | ConnectionOptions;

export interface PostgresTarget {
  /** Where, without user or password, for messages: "host:5432/database". */
  readonly name: string;
  readonly config: pg.ClientConfig;
}

/** Reads the url once, so that a mistake in it is told without repeating the password it holds. */
export function postgresTarget(url: string, ssl: PostgresTls | undefined): PostgresTarget {
  return {
    name: nameOf(url),
    config: {
      connectionString: url,
      application_name: "holdfast",
      keepAlive: true,
      types: { getTypeParser: parserOf },
      ...(ssl === undefined ? {} : { ssl }),
    },
  };
}

// pg's own reading of the url also opens the certificate files it names, so that a wrong path is told at the start.
function nameOf(url: string): string {
  const scheme = /^postgres(ql)?:\/\//.test(url);
  try {
    if (!scheme) throw new Error("no scheme");
    const { host, port, database } = new pg.Client({ connectionString: url });
    return `${host}:${port}/${database ?? ""}`;
  } catch (error) {
    const cause = scheme && error instanceof Error && "code" in error ? ` (${String(error.code)})` : "";
    throw new Failure("invalid", "DATABASE_URL_INVALID", `the Postgres url is not usable${cause}: wanted ${wanted}`);
  }
}

const wanted = "postgres://user:password@host:5432/database, with special characters in the password percent-encoded";

const asNumber = (text: string) => Number(text);
const asIs = (text: string) => text;

// Types by object id, as Postgres has had them since ever. What is not named here comes as the text Postgres shows.
const parsers: ReadonlyMap<number, (text: string) => unknown> = new Map<number, (text: string) => unknown>([
  [16, (text) => (text === "t" ? 1 : 0)], // boolean: SQLite has none, so neither has the port
  [20, asNumber], // bigint: values stay below 2^53
  [21, asNumber],
  [23, asNumber],
  [700, asNumber],
  [701, asNumber],
  [1700, asNumber], // numeric: what sum() of bigint gives
  [17, (text) => Buffer.from(text.slice(2), "hex")], // bytea, as "\x6869"
]);

// pg declares one overload per known type and format; results are always asked for as text here.
const parserOf: typeof pg.types.getTypeParser = (id: number) => parsers.get(id) ?? asIs;
