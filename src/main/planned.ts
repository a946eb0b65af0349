import type { Mounted } from "../infra/call.ts";

/** What the contract has and this build does not: it can be seen by reflection, and each call answers UNIMPLEMENTED. */
export const plannedServices: readonly Mounted[] = [];
