#!/usr/bin/env node
// As a whole, since an older Node lacks what is used of it, and would complain of that before it came to the line below.
import module from "node:module";
import { join } from "node:path";

const { argv, env, versions } = process;
if (Number.parseInt(versions.node, 10) < 24) {
  process.stderr.write(`holdfast needs Node 24 or newer, this is v${versions.node}\n`);
  process.exit(1);
}

// From TypeScript, what a start costs most, in time and in memory, is taking the types out; node remembers the outcome. It is
// kept beside the code rather than in a directory that others can write to, since it is as good as code.
const { dirname, filename } = import.meta;
if (filename.endsWith(".ts")) module.enableCompileCache(join(dirname, "../node_modules/.cache/holdfast"));

// Loaded only now, so that it is remembered; and the server only where it is to serve, so that the other commands are quick.
const { run } = await import("./cli/run.ts");
const code = await run({
  args: argv.slice(2),
  environment: env,
  serve: async (config, doubts) => (await import("./main/serve.ts")).serve(config, doubts),
  verify: async (config, request) => (await import("./main/verify.ts")).verify(config, request),
});
process.exit(code);
