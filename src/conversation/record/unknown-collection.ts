import { Failure } from "../../infra/failure.ts";

export class UnknownCollectionError extends Failure {
  constructor(name: string) {
    super("invalid", "COLLECTION_UNKNOWN", `collection: "${name}" is not one that the server is configured for`, {
      violations: [{ field: "collection", description: "has no policy, and conversation.strict_collections is on" }],
      metadata: { collection: name },
    });
  }
}
