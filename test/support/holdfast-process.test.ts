import { createServer } from "node:net";
import { expect, it } from "vitest";
import { freePort, onFreePort } from "./free-port.ts";
import { startHoldfast } from "./holdfast-process.ts";

async function status(url: string): Promise<number> {
  return (await fetch(`${url}/readyz`)).status;
}

it("runs the server on ports and data of its own, also again after a kill", async () => {
  await using one = await startHoldfast();
  await using other = await startHoldfast();
  expect(other.httpUrl).not.toBe(one.httpUrl);
  expect(await status(one.httpUrl)).toBe(200);
  const firstPid = one.pid;
  await one.kill();
  expect(one.exited()).toBe("SIGKILL");
  await expect(status(one.httpUrl)).rejects.toThrow();
  await one.restart();
  expect(one.pid).not.toBe(firstPid);
  expect(await status(one.httpUrl)).toBe(200);
  await one.stop();
  expect(one.exited()).toBe("exit code 0");
});

it("says what the server wrote when it does not start", async () => {
  await expect(startHoldfast({ REDIS_URL: "nonsense" })).rejects.toThrow("REDIS_URL");
});

it("takes another free port when somebody else was faster", async () => {
  const taken = await freePort();
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(taken, "127.0.0.1", resolve));
  const tried: number[] = [];
  await using holdfast = await onFreePort((port) => {
    tried.push(port);
    return startHoldfast({ HOLDFAST_GRPC_PORT: String(tried.length === 1 ? taken : port) });
  });
  expect(tried).toHaveLength(2);
  expect(await status(holdfast.httpUrl)).toBe(200);
  server.close();
});
