import { create, createFileRegistry, type DescService, setExtension } from "@bufbuild/protobuf";
import {
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  file_google_protobuf_descriptor,
  FieldDescriptorProto_Label as Label,
  MethodDescriptorProtoSchema,
  MethodOptions_IdempotencyLevel,
  MethodOptionsSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import {
  file_holdfast_v1_options,
  NamespaceRuleSchema,
  namespaces,
  scope,
} from "../../src/gen/holdfast/v1/options_pb.js";

/**
 * A service with one RPC of each kind, for tests of the server itself: holdfast.test.EchoService { Say, Count, Collect, Chat },
 * Missing, which nothing implements, and Undeclared, which does not say its namespace, all taking and returning Echo { namespace, text, number, data }.
 */
export const EchoService: DescService = describe();

function describe(): DescService {
  const field = (name: string, number: number, type: Type) =>
    create(FieldDescriptorProtoSchema, { name, jsonName: name, number, type, label: Label.OPTIONAL });
  const method = (name: string, clientStreaming: boolean, serverStreaming: boolean) => {
    const options = create(MethodOptionsSchema, { idempotencyLevel: MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS });
    setExtension(options, scope, name === "Say" ? "echo:read" : "echo:stream");
    const rule = create(NamespaceRuleSchema, { source: { case: "field", value: "namespace" } });
    if (name !== "Undeclared") setExtension(options, namespaces, rule);
    const type = ".holdfast.test.Echo";
    return create(MethodDescriptorProtoSchema, {
      name,
      inputType: type,
      outputType: type,
      clientStreaming,
      serverStreaming,
      options,
    });
  };
  const file = create(FileDescriptorProtoSchema, {
    name: "holdfast/test/echo.proto",
    package: "holdfast.test",
    syntax: "proto3",
    dependency: ["holdfast/v1/options.proto"],
    messageType: [
      {
        name: "Echo",
        field: [
          field("namespace", 1, Type.STRING),
          field("text", 2, Type.STRING),
          field("number", 3, Type.INT32),
          field("data", 4, Type.BYTES),
        ],
      },
    ],
    service: [
      {
        name: "EchoService",
        method: [
          method("Say", false, false),
          method("Count", false, true),
          method("Collect", true, false),
          method("Chat", true, true),
          method("Missing", false, false),
          method("Undeclared", false, false),
        ],
      },
    ],
  });
  const registry = createFileRegistry(file, (name) =>
    [file_holdfast_v1_options, file_google_protobuf_descriptor].find((known) => known.proto.name === name),
  );
  const service = registry.getService("holdfast.test.EchoService");
  if (service === undefined) throw new Error("EchoService was not built");
  return service;
}

/** What an Echo holds. */
export interface Echo {
  readonly namespace: string;
  readonly text: string;
  readonly number: number;
  readonly data: Uint8Array;
}
