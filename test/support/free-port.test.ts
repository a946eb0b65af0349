import { join } from "node:path";
import { expect, it } from "vitest";
import { startChild } from "./child.ts";
import { freePort } from "./free-port.ts";

const MANY = 500;

const script = `
  const { freePort } = await import(${JSON.stringify(join(import.meta.dirname, "free-port.ts"))});
  const ports = [];
  while (ports.length < ${MANY}) ports.push(await freePort());
  console.log(JSON.stringify(ports));
  setInterval(() => undefined, 1_000_000);
`;

it("gives nobody a port that another process was given and does not listen on just now", async () => {
  let theirs: readonly number[] = [];
  const child = await startChild({
    ...{ command: process.execPath, args: ["--input-type=module", "--eval", script], cwd: import.meta.dirname },
    isReady: (line) => {
      if (!line.startsWith("[")) return false;
      theirs = JSON.parse(line);
      return true;
    },
  });
  try {
    const ours: number[] = [];
    while (ours.length < MANY) ours.push(await freePort());
    expect(new Set([...ours, ...theirs]).size).toBe(2 * MANY);
  } finally {
    await child.kill();
  }
});
