// `node scripts/count-tests.ts <vitest's JSON report> <vitest's exit code>` prints "<passed> <failed>" for CI. It never makes a run look
// better than it was: no report, no test, a file that did not load, or a bad exit code without a failed test each count as a failure.
import { readFileSync } from "node:fs";
import { z } from "zod";

const report = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numTodoTests: z.number(),
  testResults: z.array(
    z.object({ name: z.string(), status: z.string(), assertionResults: z.array(z.object({ status: z.string() })) }),
  ),
});

const [file = "", exitCode = ""] = process.argv.slice(2);
const { passed, failed } = count();
console.log(`${passed} ${failed}`);

function count(): { passed: number; failed: number } {
  let found: z.infer<typeof report>;
  try {
    found = report.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch (error) {
    console.error(`vitest ended with exit code ${exitCode} and left no readable report: ${String(error)}`);
    return { passed: 0, failed: 1 };
  }
  const broken = found.testResults.filter(
    ({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  );
  for (const { name } of broken) console.error(`${name} failed outside of any test.`);
  const skipped = found.numPendingTests + found.numTodoTests;
  if (skipped > 0) console.error(`${skipped} tests were skipped.`);

  const failed = found.numFailedTests + broken.length;
  const clean = exitCode === "0" && found.numPassedTests > 0;
  if (failed > 0 || clean) return { passed: found.numPassedTests, failed };
  console.error(`vitest ended with exit code ${exitCode} although no test failed: something outside of the tests did.`);
  return { passed: found.numPassedTests, failed: 1 };
}
