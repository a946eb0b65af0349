import { DedupService } from "../gen/holdfast/v1/dedup_pb.js";
import { type Mounted, mount } from "../infra/call.ts";

/** What the contract has and this build does not: it can be seen by reflection, and each call answers UNIMPLEMENTED. */
export const plannedServices: readonly Mounted[] = [mount(DedupService, {})];
