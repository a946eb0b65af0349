import { parseArgs } from "node:util";
import { type Config, ConfigError, type Environment, loadConfig } from "../config.ts";
import { help, UsageError } from "./usage.ts";
import type { VerifyOutcome, VerifyRequest } from "./verify.ts";
import { version } from "./version.ts";

export interface Cli {
  readonly args: readonly string[];
  readonly environment: Environment;
  /** Runs the server until it is told to stop; resolves with the exit code. */
  serve(config: Config, doubts: readonly string[]): Promise<number>;
  /** Verifies the audit archive. */
  verify(config: Config, request: VerifyRequest): Promise<VerifyOutcome>;
}

/** Runs one command. Resolves with the exit code: 0 done, 1 failed, 2 not understood. That of verify has a meaning of its own. */
export async function run(cli: Cli): Promise<number> {
  try {
    return await dispatch(cli);
  } catch (error) {
    if (error instanceof UsageError || (error instanceof TypeError && isParseError(error))) {
      process.stderr.write(`holdfast: ${error.message}\nSee \`holdfast help\`.\n`);
      return 2;
    }
    if (error instanceof ConfigError || (error instanceof Error && error.name === "KeysFileError")) {
      process.stderr.write(`holdfast: ${error.message}\n`);
      // To whoever runs verify, 1 means that records were tampered with.
      return cli.args[0] === "verify" ? 2 : 1;
    }
    throw error;
  }
}

async function dispatch({ args, environment, serve, verify }: Cli): Promise<number> {
  const [command = "serve", ...rest] = args;
  if (rest.includes("--help") || rest.includes("-h")) {
    process.stdout.write(help);
    return 0;
  }
  const client = {
    environment,
    stdout: process.stdout,
    remark: (line: string) => process.stderr.write(`${line}\n`),
  };
  switch (command) {
    case "serve": {
      none(rest);
      const { config, doubts } = await loadConfig(environment);
      return serve(config, doubts);
    }
    case "config": {
      const { values } = parseArgs({ args: rest, options: { json: { type: "boolean" } } });
      const { configAsJson, configAsYaml } = await import("./config.ts");
      const loaded = await loadConfig(environment);
      for (const doubt of loaded.doubts) process.stderr.write(`holdfast: ${doubt}\n`);
      process.stdout.write((values.json ? configAsJson : configAsYaml)(loaded));
      return 0;
    }
    case "keys": {
      const { keysCommand } = await import("./keys.ts");
      await keysCommand(rest, {
        environment,
        print: (line) => process.stdout.write(`${line}\n`),
        remark: (line) => process.stderr.write(`${line}\n`),
      });
      return 0;
    }
    case "verify": {
      const { verifyCommand } = await import("./verify.ts");
      const { config } = await loadConfig(environment);
      return verifyCommand(rest, {
        verify: (request) => verify(config, request),
        print: (line) => process.stdout.write(`${line}\n`),
        remark: (line) => process.stderr.write(`holdfast: ${line}\n`),
        now: () => performance.now(),
      });
    }
    case "import": {
      const { importCommand } = await import("./import.ts");
      return importCommand(rest, {
        environment,
        print: (line) => process.stdout.write(`${line}\n`),
        remark: (line) => process.stderr.write(`${line}\n`),
      });
    }
    case "export": {
      const { exportCommand } = await import("./export.ts");
      return exportCommand(rest, client);
    }
    case "checkpoint": {
      const { checkpointCommand } = await import("./checkpoint.ts");
      return checkpointCommand(rest, client);
    }
    case "version":
    case "--version":
    case "-v":
      none(rest);
      process.stdout.write(`${version}\n`);
      return 0;
    case "help":
    case "--help":
    case "-h":
      process.stdout.write(help);
      return 0;
    default:
      throw new UsageError(`there is no command ${JSON.stringify(command)}`);
  }
}

function none(rest: readonly string[]): void {
  if (rest.length > 0) throw new UsageError(`unexpected ${rest.join(" ")}`);
}

/** What node's own parser throws for an option that does not exist or lacks its value. */
function isParseError(error: TypeError): boolean {
  return "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS");
}
