import type { Fencing } from "../gen/holdfast/v1/fencing_pb.js";
import { Failure } from "./failure.ts";

export function requireNoFencing(fencing: Fencing | undefined): void {
  if (fencing === undefined) return;
  throw new Failure(
    "unimplemented",
    "FENCING_UNIMPLEMENTED",
    "fencing: this server has no LockService yet; the write was not made, because it could not be checked",
    { metadata: { field: "fencing" } },
  );
}
