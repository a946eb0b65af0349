import { execFile, execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { promisify } from "node:util";
import pg from "pg";
import { findBinary, findSibling } from "./binaries.ts";
import { type Child, startChild } from "./child.ts";
import { onFreePort } from "./free-port.ts";
import { type ScratchDirectory, scratchDirectory } from "./scratch.ts";

const run = promisify(execFile);
const superuser = "holdfast";

export interface PostgresServer extends AsyncDisposable {
  readonly port: number;
  /** The administrator's, on the database `postgres`. */
  readonly url: string;
  /** Changes with `restart`. */
  readonly pid: number;
  output(): string;
  /** Makes a new empty database and resolves with its url. */
  createDatabase(): Promise<string>;
  /** Freezes it and all its connections: nothing is answered. */
  pause(): void;
  resume(): void;
  /** Ends it and all its connections at once, as a crash would. */
  kill(): Promise<void>;
  /** Ends it and all its connections as an administrator would; its data stays, for a `restart`. */
  shutDown(): Promise<void>;
  /** Starts it again on the same port and data. */
  restart(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

export interface PostgresOptions {
  /** More settings, such as `{ max_connections: "20" }`. */
  readonly settings?: Readonly<Record<string, string>>;
}

interface User {
  readonly uid: number;
  readonly gid: number;
}

export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const binary = findBinary("postgres");
  const user = unprivilegedUser();
  const directory = scratchDirectory("postgres", user);
  try {
    await fill(directory.path, binary, user);
    return await onFreePort((port) =>
      startPostgresOn(port, { binary, user, directory, settings: options.settings ?? {} }),
    );
  } catch (error) {
    directory.remove();
    throw error;
  }
}

/** Where servers that are started from now on, by this process and by those it starts, copy their data directory from. */
const TEMPLATE = "TEST_POSTGRES_TEMPLATE";

/** Has the data directory of a server made once for all, which takes Postgres ten times as long as to copy it. */
export async function makePostgresTemplate(): Promise<ScratchDirectory> {
  const user = unprivilegedUser();
  const directory = scratchDirectory("postgres-template", user);
  try {
    await initialize(findBinary("postgres"), directory.path, user);
  } catch (error) {
    directory.remove();
    throw error;
  }
  process.env[TEMPLATE] = directory.path;
  return directory;
}

/** Makes a new empty database on a server that runs elsewhere, given the administrator's url. */
export async function createDatabase(adminUrl: string): Promise<string> {
  const name = `test_${randomUUID().replaceAll("-", "")}`;
  const client = new pg.Client({ connectionString: adminUrl });
  await client.connect();
  try {
    await client.query(`CREATE DATABASE ${name}`);
  } finally {
    await client.end();
  }
  const url = new URL(adminUrl);
  url.pathname = `/${name}`;
  return url.href;
}

interface Installation {
  readonly binary: string;
  readonly user: User | undefined;
  readonly directory: ScratchDirectory;
  readonly settings: Readonly<Record<string, string>>;
}

async function startPostgresOn(port: number, installation: Installation): Promise<PostgresServer> {
  const { directory } = installation;
  const url = `postgres://${superuser}@127.0.0.1:${port}/postgres`;
  const start = () => runPostgres(port, installation);
  let child: Child = await start();
  // SIGINT is Postgres's "fast" shutdown: it does not wait for clients to leave.
  const shutDown = () => child.stop("SIGINT");
  const stop = async () => {
    await shutDown();
    directory.remove();
  };
  return {
    port,
    url,
    get pid() {
      return child.pid;
    },
    output: () => child.output(),
    createDatabase: () => createDatabase(url),
    pause: () => child.pause(),
    resume: () => child.resume(),
    kill: () => child.kill(),
    shutDown,
    restart: async () => {
      await shutDown();
      child = await start();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function runPostgres(port: number, { binary, user, directory, settings }: Installation): Promise<Child> {
  const all = {
    listen_addresses: "127.0.0.1",
    port: String(port),
    unix_socket_directories: "",
    // Speed for tests. A killed process loses nothing by it: only a killed machine would.
    fsync: "off",
    full_page_writes: "off",
    shared_buffers: "16MB",
    max_connections: "200",
    autovacuum_naptime: "10min",
    ...settings,
  };
  return startChild({
    command: binary,
    args: ["-D", directory.path, ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
    cwd: directory.path,
    ...(user && { user }),
    isReady: (line) => line.includes("database system is ready to accept connections"),
  });
}

async function fill(directory: string, binary: string, user: User | undefined): Promise<void> {
  const template = process.env[TEMPLATE];
  if (template === undefined) return initialize(binary, directory, user);
  await run("cp", ["-R", "-p", `${template}/.`, directory], { cwd: directory, ...user });
}

async function initialize(binary: string, directory: string, user: User | undefined): Promise<void> {
  const args = [
    "-D",
    directory,
    "-U",
    superuser,
    "-A",
    "trust",
    "-E",
    "UTF8",
    "--locale=C",
    "--no-sync",
    "--no-instructions",
  ];
  await run(findSibling(binary, "initdb"), args, { cwd: directory, ...user });
}

// Postgres refuses to run as root.
function unprivilegedUser(): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ["postgres", "nobody"]) {
    try {
      const id = (flag: string) => Number(execFileSync("id", [flag, name], { encoding: "utf8", stdio: "pipe" }));
      return { uid: id("-u"), gid: id("-g") };
    } catch {
      // No such user here: try the next.
    }
  }
  throw new Error("Postgres refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as.");
}
