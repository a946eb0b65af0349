import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeEach } from "vitest";
import { scratchDirectory } from "./scratch.ts";

export interface DirectoryPerTest {
  /** That of the test that runs now. */
  readonly path: string;
  /** Of a file in it. */
  of(name: string): string;
}

/** An empty directory for each test of a file; to be called at its top. All are removed behind the last one. */
export function directoryPerTest(purpose: string): DirectoryPerTest {
  const scratch = scratchDirectory(purpose);
  afterAll(() => scratch.remove());
  let path = "";
  let number = 0;
  beforeEach(() => {
    path = join(scratch.path, String(++number));
    mkdirSync(path);
  });
  return {
    get path() {
      return path;
    },
    of: (name) => join(path, name),
  };
}
