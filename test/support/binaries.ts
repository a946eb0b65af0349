import { accessSync, constants, readdirSync, realpathSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";

const debianPostgres = "/usr/lib/postgresql";

/** Where a server program is installed. Fails with what to do when it is not. */
export function findBinary(name: string): string {
  const found = lookUp(name, searchPath());
  if (found) return found;
  throw new Error(
    `${name} is not installed (looked in PATH and ${debianPostgres}/*/bin). Run: bash scripts/ensure-servers.sh`,
  );
}

/** A program that belongs with another one: Debian links `postgres` into PATH on some machines, but not `initdb`. */
export function findSibling(binary: string, name: string): string {
  return lookUp(name, [dirname(realpathSync(binary))]) ?? findBinary(name);
}

export function lookUp(name: string, directories: readonly string[]): string | undefined {
  for (const directory of directories) {
    const candidate = join(directory, name);
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not here: the next directory may have it.
    }
  }
  return undefined;
}

export function searchPath(): string[] {
  return [...(process.env.PATH ?? "").split(delimiter).filter(Boolean), ...debianPostgresDirectories()];
}

// Debian keeps `postgres` and `initdb` out of PATH, one directory for each major version; the newest first.
function debianPostgresDirectories(): string[] {
  try {
    const versions = readdirSync(debianPostgres).filter((name) => /^\d+$/.test(name));
    return versions.sort((a, b) => Number(b) - Number(a)).map((version) => join(debianPostgres, version, "bin"));
  } catch {
    return [];
  }
}
