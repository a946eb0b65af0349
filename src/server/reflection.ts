import type { DescFile } from "@bufbuild/protobuf";
import { create, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { file_google_rpc_error_details } from "../gen/google/rpc/error_details_pb.js";
import { Health } from "../gen/health/v1/health_pb.js";
import type { Mounted } from "../infra/call.ts";
import { createLateService, type LateService, type Loaded } from "./late-service.ts";
import { RecordingServer } from "./recording-server.ts";

/** Server reflection (v1 and v1alpha), so that grpcurl needs no proto files. */
export function createReflection(services: readonly Mounted[]): LateService {
  const methods = ["v1", "v1alpha"].map((version) => ({
    path: `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    requestStream: true,
    responseStream: true,
  }));
  return createLateService(methods, () => load(services));
}

async function load(mounted: readonly Mounted[]): Promise<ReadonlyMap<string, Loaded>> {
  const { ReflectionService } = await import("@grpc/reflection");
  const server = new RecordingServer();
  const files = new Map<string, Buffer>();
  // grpc.health.v1 is served by a library, and belongs to what can be called as much as ours.
  const services = [...mounted.map(({ service }) => service), Health];
  for (const { file } of services) collect(file, files);
  // The types of error details, which no RPC names but every client that prints an error looks up.
  collect(file_google_rpc_error_details, files);
  // Its API takes what proto-loader makes of .proto files; it reads nothing of that but the descriptors.
  const descriptor = {
    format: "Protocol Buffer 3 EnumDescriptorProto" as const,
    type: {},
    fileDescriptorProtos: [...files.values()],
  };
  const reflection = new ReflectionService(
    { holdfast: descriptor },
    { services: services.map(({ typeName }) => typeName) },
  );
  reflection.addToServer(server);
  return server.added;
}

function collect(file: DescFile, into: Map<string, Buffer>): void {
  if (into.has(file.proto.name)) return;
  const bytes = toBinary(FileDescriptorProtoSchema, create(FileDescriptorProtoSchema, file.proto));
  into.set(file.proto.name, Buffer.from(bytes));
  for (const dependency of file.dependencies) collect(dependency, into);
}
