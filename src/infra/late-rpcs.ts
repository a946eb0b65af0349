import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { CallContext, Rpcs } from "./call.ts";

type AnyRpcs = Readonly<Record<string, (request: unknown, call: CallContext) => unknown>>;

/**
 * RPCs whose code is loaded when one of them is called for the first time: a process that nobody asks for them does not keep
 * them in memory. `load` is called once; should it fail, the next call tries again.
 */
export function lateRpcs<S extends DescService, Name extends keyof S["method"] & string>(
  service: S,
  names: readonly Name[],
  load: () => Promise<Pick<Rpcs<S>, Name>>,
): Pick<Rpcs<S>, Name> {
  let loading: Promise<AnyRpcs> | undefined;
  let ready: AnyRpcs | undefined;

  function loaded(): Promise<AnyRpcs> {
    // What `load` promises by its type is only known as functions here.
    loading ??= (load() as Promise<unknown> as Promise<AnyRpcs>).then(
      (rpcs) => {
        ready = rpcs;
        return rpcs;
      },
      (error: unknown) => {
        loading = undefined;
        throw error;
      },
    );
    return loading;
  }

  function late(desc: DescMethod, name: Name) {
    const rpcOf = (rpcs: AnyRpcs) => {
      const rpc = rpcs[name];
      if (rpc === undefined) throw new Error(`${desc.name} was not among what was loaded`);
      return rpc;
    };
    if (desc.methodKind === "unary" || desc.methodKind === "client_streaming") {
      return (request: unknown, call: CallContext) =>
        ready === undefined ? loaded().then((rpcs) => rpcOf(rpcs)(request, call)) : rpcOf(ready)(request, call);
    }
    return async function* (request: unknown, call: CallContext) {
      yield* rpcOf(await loaded())(request, call) as AsyncIterable<unknown>;
    };
  }

  const entries = names.map((name) => {
    const desc: DescMethod | undefined = service.method[name];
    if (desc === undefined) throw new Error(`${service.typeName} has no RPC ${name}`);
    return [name, late(desc, name)] as const;
  });
  return Object.fromEntries(entries) as Pick<Rpcs<S>, Name>;
}
