import type { Migration } from "../migrations.ts";
import { cache } from "./0001-cache.ts";

/** Every migration of this build. A new one goes to the end with the next number. */
export const migrations: readonly Migration[] = [cache];
