import type { NamespacePolicies, NamespacePolicy } from "../cache/policy.ts";
import { flag, list, ratio, text } from "./kind.ts";
import type { Reader, Setting } from "./reader.ts";
import { duration, durationOrNever, size } from "./units.ts";

const maxTtlMs = 3650 * 86_400_000;
const maxValueBytes = 4 * 1024 * 1024;
/** A namespace as the contract allows it, or the start of one followed by `*`. */
const namePattern = /^(?=.{1,129}$)[A-Za-z0-9._:-]{0,128}\*?$/;

const ttlKind = durationOrNever({ bare: "s", min: 1, max: maxTtlMs });
const l1TtlKind = duration({ bare: "s", min: 0, max: maxTtlMs });
const jitterKind = ratio();
const staleKind = duration({ bare: "s", min: 0, max: maxTtlMs });
const eagerKind = ratio();
const durableKind = flag();
const maxBytesKind = size({ min: 1, max: maxValueBytes });
const warmKind = list(text("key patterns"));

const builtIn: NamespacePolicy = {
  ttlMs: 3_600_000,
  l1TtlMs: 300_000,
  jitter: 0.1,
  staleForMs: 0,
  eagerRefresh: undefined,
  durable: false,
  maxBytes: maxValueBytes,
  warm: [],
};

/** What a policy leaves out it takes from `cache.default`, and that from the built-in one. */
function readPolicy(
  reader: Reader,
  group: readonly string[],
  inherited: NamespacePolicy,
  variables: { readonly ttl?: string; readonly l1Ttl?: string },
  inheritedFrom: string,
): NamespacePolicy {
  const at = <T>(name: string, kind: Setting<T>["kind"], env?: string): Setting<T> => ({
    path: [...group, name],
    kind,
    ...(env !== undefined && { env }),
  });
  return {
    ttlMs: reader.required(at("ttl", ttlKind, variables.ttl), inherited.ttlMs, inheritedFrom),
    l1TtlMs: reader.required(at("l1_ttl", l1TtlKind, variables.l1Ttl), inherited.l1TtlMs, inheritedFrom),
    jitter: reader.required(at("jitter", jitterKind), inherited.jitter, inheritedFrom),
    staleForMs: reader.required(at("stale_for", staleKind), inherited.staleForMs, inheritedFrom),
    eagerRefresh:
      inherited.eagerRefresh === undefined
        ? reader.optional(at("eager_refresh", eagerKind))
        : reader.required(at("eager_refresh", eagerKind), inherited.eagerRefresh, inheritedFrom),
    durable: reader.required(at("durable", durableKind), inherited.durable, inheritedFrom),
    maxBytes: reader.required(at("max_bytes", maxBytesKind), inherited.maxBytes, inheritedFrom),
    warm: reader.required(at("warm", warmKind), inherited.warm, inheritedFrom),
  };
}

export function readPolicies(reader: Reader): NamespacePolicies {
  const variables = { ttl: "CACHE_TTL", l1Ttl: "CACHE_L1_TTL" };
  const fallback = readPolicy(reader, ["cache", "default"], builtIn, variables, "default");
  const strict = reader.required({ path: ["cache", "strict_namespaces"], kind: flag() }, false);
  const group = ["cache", "namespaces"];
  const namespaces = reader.names(group).map((name): [string, NamespacePolicy] => {
    if (!namePattern.test(name)) {
      const wanted = `1 to 128 letters, digits and "._:-", with * at the end for every namespace that starts so`;
      reader.refuseInFile([...group, name], `is not the name of a namespace, wanted ${wanted}`);
    }
    return [name, readPolicy(reader, [...group, name], fallback, {}, "cache.default")];
  });
  return { fallback, namespaces: Object.fromEntries(namespaces), strict };
}
