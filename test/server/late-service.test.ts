import type { MethodDefinition } from "@grpc/grpc-js";
import { expect, it } from "vitest";
import { createLateService, type Loaded } from "../../src/server/late-service.ts";

const path = "/some.Service/Call";
const method = { path, requestStream: false, responseStream: false };
const asIs = (bytes: Buffer) => bytes;
const definition: MethodDefinition<unknown, unknown> = {
  ...method,
  requestSerialize: () => Buffer.alloc(0),
  responseSerialize: () => Buffer.alloc(0),
  requestDeserialize: asIs,
  responseDeserialize: asIs,
};
const library = new Map<string, Loaded>([[path, { definition, handler: () => undefined }]]);

it("is loaded once for all calls that come meanwhile, and waited for no more afterwards", async () => {
  let loads = 0;
  const service = createLateService([method], async () => {
    loads++;
    return library;
  });
  expect(loads).toBe(0);
  await Promise.all([service.loading(), service.loading()]);
  expect(service.loading()).toBeUndefined();
  expect(loads).toBe(1);
});

it("is tried again with the next call when it could not be loaded", async () => {
  let loads = 0;
  const service = createLateService([method], async () => {
    if (loads++ === 0) throw new Error("no such file");
    return library;
  });
  await expect(service.loading()).rejects.toThrow("no such file");
  await service.loading();
  expect(service.loading()).toBeUndefined();
});

it("refuses a library that does not serve what was promised in its name", async () => {
  const service = createLateService([method], async () => new Map());
  await expect(service.loading()).rejects.toThrow("does not serve /some.Service/Call");
});

it("knows its calls by their paths before it is loaded", () => {
  const service = createLateService([method], async () => library);
  expect(service.serves(path)).toBe(true);
  expect(service.serves("/some.Service/Other")).toBe(false);
});
