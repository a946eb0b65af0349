import { closeSync, fsyncSync, openSync, renameSync, statSync, unlinkSync, writeSync } from "node:fs";
import { ConfigError } from "../../config.ts";

/** Where a command writes what it was asked for. */
export interface Output {
  /** Resolves when there is room for more. Rejects with OutputFailed when there is none. */
  write(bytes: Uint8Array): Promise<void>;
  /** All of it was written. */
  complete(): void;
  /** Undoes what is not complete, as far as that can be. Does nothing after `complete`. */
  close(): void;
}

/** Such as a full disk, or `head` that has had enough. */
export class OutputFailed extends Error {
  constructor(cause: unknown) {
    super(`cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.name = "OutputFailed";
  }
}

export function openOutput(file: string | undefined, stdout: NodeJS.WritableStream): Output {
  return file === undefined ? toStream(stdout) : toFile(file);
}

function toStream(stdout: NodeJS.WritableStream): Output {
  // Each write is told of its own failure; without a listener the stream would end the process, too.
  stdout.on("error", () => {});
  return {
    write: (bytes) =>
      new Promise((resolve, reject) => {
        stdout.write(bytes, (error) => {
          if (error) reject(new OutputFailed(error));
          else resolve();
        });
      }),
    complete() {},
    close() {},
  };
}

/** Under the name that was asked for there is only ever a whole file. */
function toFile(file: string): Output {
  const isReplaceable = statSync(file, { throwIfNoEntry: false })?.isFile() ?? true;
  const path = isReplaceable ? `${file}.partial` : file;
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, "w");
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ConfigError([{ where: "--out", what: `${file} cannot be written: ${why}` }]);
  }
  const end = (): boolean => {
    if (descriptor === undefined) return false;
    closeSync(descriptor);
    descriptor = undefined;
    return true;
  };
  return {
    async write(bytes) {
      try {
        for (let at = 0; descriptor !== undefined && at < bytes.length; ) at += writeSync(descriptor, bytes, at);
      } catch (error) {
        throw new OutputFailed(error);
      }
    },
    complete() {
      if (isReplaceable && descriptor !== undefined) fsyncSync(descriptor);
      if (end() && isReplaceable) renameSync(path, file);
    },
    close() {
      if (end() && isReplaceable) unlinkSync(path);
    },
  };
}
