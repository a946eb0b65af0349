import type { HealthImplementation } from "grpc-health-check";
import { isImplemented, type Mounted } from "../infra/call.ts";
import { createLateService, type LateService } from "./late-service.ts";
import { RecordingServer } from "./recording-server.ts";

/** grpc.health.v1, for the server as a whole and for each service. One without any RPC here never serves. */
export interface GrpcHealth {
  readonly service: LateService;
  setServing(serving: boolean): void;
}

export function createGrpcHealth(services: readonly Mounted[]): GrpcHealth {
  const [implemented, planned] = [services.filter(isImplemented), services.filter((one) => !isImplemented(one))];
  const names = ["", ...implemented.map(nameOf)];
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
      health = new HealthImplementation({
        ...Object.fromEntries(planned.map((one) => [nameOf(one), "NOT_SERVING" as const])),
        ...Object.fromEntries(names.map((name) => [name, status])),
      });
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

function nameOf({ service }: Mounted): string {
  return service.typeName;
}
