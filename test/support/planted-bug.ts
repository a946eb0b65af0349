import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ScratchDirectory, scratchDirectory } from "./scratch.ts";

const repository = join(import.meta.dirname, "../..");

/** A change to one file: a text that occurs in it once, and what stands there instead. */
export interface Patch {
  /** From the root of the repository. */
  readonly file: string;
  readonly text: string;
  readonly instead: string;
}

/** A copy of the server's code with a bug in it, to show that a test catches the like. Its path is the `root` of startHoldfast. */
export function plantBug(patches: readonly Patch[]): ScratchDirectory {
  const directory = scratchDirectory("planted");
  cpSync(join(repository, "src"), join(directory.path, "src"), { recursive: true });
  cpSync(join(repository, "package.json"), join(directory.path, "package.json"));
  symlinkSync(join(repository, "node_modules"), join(directory.path, "node_modules"));
  for (const { file, text, instead } of patches) {
    const path = join(directory.path, file);
    const [before, after, ...more] = readFileSync(path, "utf8").split(text);
    if (before === undefined || after === undefined || more.length > 0) {
      directory.remove();
      throw new Error(`the bug cannot be planted: ${file} holds ${more.length > 0 ? "more than one" : "no"} ${text}`);
    }
    writeFileSync(path, before + instead + after);
  }
  return directory;
}
