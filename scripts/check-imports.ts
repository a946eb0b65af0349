// The import rule alone, in a moment and without servers; test/architecture tests the same, and the rule itself.
import { join } from "node:path";
import { findViolations, readSources } from "../test/architecture/import-rule.ts";

const violations = findViolations(readSources(join(import.meta.dirname, "..")));
for (const { path, specifier, why } of violations) console.error(`${path} imports "${specifier}": ${why}.`);
if (violations.length > 0) process.exitCode = 1;
