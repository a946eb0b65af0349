import type { MethodDefinition, Server, UntypedHandleCall } from "@grpc/grpc-js";

/** What a library adds to a server. */
export interface Loaded {
  readonly definition: MethodDefinition<unknown, unknown>;
  readonly handler: UntypedHandleCall;
}

/** A library's services, known by their paths, and loaded when one is called for the first time. */
export interface LateService {
  addTo(server: Server): void;
  serves(path: string): boolean;
  /** Undefined once there is nothing to wait for. No call may reach its handler before. */
  loading(): Promise<void> | undefined;
}

export interface LateMethod {
  /** Such as "/grpc.health.v1.Health/Check". */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/**
 * Reflection and health are worth five megabytes to a process that nobody asks for them. `load` resolves with what the
 * library would have added to the server, by path.
 */
export function createLateService(
  methods: readonly LateMethod[],
  load: () => Promise<ReadonlyMap<string, Loaded>>,
): LateService {
  let loaded: ReadonlyMap<string, Loaded> | undefined;
  let loading: Promise<void> | undefined;

  function at(path: string): Loaded {
    const found = loaded?.get(path);
    if (found === undefined) throw new Error(`${path} was called before it was loaded`);
    return found;
  }

  async function loadOnce(): Promise<void> {
    try {
      const found = await load();
      for (const { path } of methods) if (!found.has(path)) throw new Error(`the library does not serve ${path}`);
      loaded = found;
    } finally {
      // What could not be loaded is tried again with the next call.
      loading = undefined;
    }
  }

  return {
    addTo(server) {
      const definitions: Record<string, MethodDefinition<unknown, unknown>> = {};
      const handlers: Record<string, UntypedHandleCall> = {};
      for (const { path, requestStream, responseStream } of methods) {
        definitions[path] = {
          path,
          requestStream,
          responseStream,
          requestDeserialize: (bytes) => at(path).definition.requestDeserialize(bytes),
          responseSerialize: (reply) => at(path).definition.responseSerialize(reply),
          requestSerialize: (request) => at(path).definition.requestSerialize(request),
          responseDeserialize: (bytes) => at(path).definition.responseDeserialize(bytes),
        };
        handlers[path] = (...call: unknown[]) => void Reflect.apply(at(path).handler, undefined, call);
      }
      server.addService(definitions, handlers);
    },
    serves: (path) => methods.some((method) => method.path === path),
    loading() {
      if (loaded === undefined) loading ??= loadOnce();
      return loading;
    },
  };
}
