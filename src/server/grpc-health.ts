import type { HealthImplementation } from "grpc-health-check";
import { createLateService, type LateService } from "./late-service.ts";
import { RecordingServer } from "./recording-server.ts";

/** grpc.health.v1, for the server as a whole and for each service. */
export interface GrpcHealth {
  readonly service: LateService;
  setServing(serving: boolean): void;
}

export function createGrpcHealth(services: readonly string[]): GrpcHealth {
  const names = ["", ...services];
  let status: "SERVING" | "NOT_SERVING" = "SERVING";
  let health: HealthImplementation | undefined;
  const service = createLateService(
    [
      { path: "/grpc.health.v1.Health/Check", requestStream: false, responseStream: false },
      { path: "/grpc.health.v1.Health/List", requestStream: false, responseStream: false },
      { path: "/grpc.health.v1.Health/Watch", requestStream: false, responseStream: true },
    ],
    async () => {
      const { HealthImplementation } = await import("grpc-health-check");
      const server = new RecordingServer();
      health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, status])));
      health.addToServer(server);
      return server.added;
    },
  );
  return {
    service,
    setServing(serving) {
      status = serving ? "SERVING" : "NOT_SERVING";
      for (const name of names) health?.setStatus(name, status);
    },
  };
}
