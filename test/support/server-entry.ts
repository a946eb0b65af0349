import { inject } from "vitest";

/** What node is to run: the server as this run of the tests has built it. */
export function serverEntry(): string {
  return inject("serverEntry");
}
