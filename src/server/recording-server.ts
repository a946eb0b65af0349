import { Server, type ServiceDefinition, type UntypedServiceImplementation } from "@grpc/grpc-js";
import type { Loaded } from "./late-service.ts";

/** Takes down what is added to it, and serves nothing. */
export class RecordingServer extends Server {
  readonly added = new Map<string, Loaded>();

  constructor() {
    super({ "grpc.enable_channelz": 0 });
  }

  override addService(service: ServiceDefinition, implementation: UntypedServiceImplementation): void {
    for (const [name, definition] of Object.entries(service)) {
      const handler = implementation[name] ?? implementation[definition.originalName ?? ""];
      if (handler !== undefined) this.added.set(definition.path, { definition, handler });
    }
  }
}
