import type { DescMethod } from "@bufbuild/protobuf";
import { isImplemented, type Mounted } from "../infra/call.ts";
import { Failure } from "../infra/failure.ts";
import { didYouMean } from "../infra/suggest.ts";
import { errorBody } from "./error-body.ts";

/** What of the contract can be called on the HTTP plane, and how; for people who look around with a browser or curl. */
export interface RpcIndex {
  readonly page: object;
  /** What to answer for a path that looks like an RPC and is none. Undefined where it does not look like one. */
  noSuch(path: string): object | undefined;
}

export function createRpcIndex(services: readonly Mounted[]): RpcIndex {
  const there = services.flatMap(({ service, rpcs }) =>
    service.methods.filter((rpc) => rpcs[rpc.localName] !== undefined),
  );
  const names = services.map(({ service }) => service.typeName);
  const planned = services.filter((mounted) => !isImplemented(mounted)).map(({ service }) => service.typeName);
  return {
    page: {
      rpcs: "POST JSON to any of these paths, with content-type: application/json; or use gRPC on the gRPC port",
      paths: there.filter(isUnary).map(pathOf),
      streams: { how: streaming, paths: there.filter((rpc) => !isUnary(rpc)).map(pathOf) },
      planned: { how: "in the contract, and answered with unimplemented", services: planned },
    },
    noSuch(path) {
      const [, name, rpc] = /^\/([\w.]+\.\w+)\/(\w*)$/.exec(path) ?? [];
      if (name === undefined || rpc === undefined) return undefined;
      const found = services.find(({ service }) => service.typeName === name);
      const what =
        found === undefined
          ? `there is no service ${name}${didYouMean(name, names)}`
          : `${name} has no RPC ${JSON.stringify(rpc)}${didYouMean(rpc, found.service.methods.map(nameOf))}`;
      return errorBody(new Failure("unimplemented", "RPC_NOT_IMPLEMENTED", `${what} (GET / lists what there is)`));
    },
  };
}

const streaming =
  "these answer with a stream: use gRPC, gRPC-Web or a Connect client; by hand, content-type: application/connect+json, and each message behind a byte of flags (0) and its length in 4 bytes, big-endian";

const isUnary = ({ methodKind }: DescMethod): boolean => methodKind === "unary";
const nameOf = ({ name }: DescMethod): string => name;
const pathOf = ({ name, parent }: DescMethod): string => `/${parent.typeName}/${name}`;
