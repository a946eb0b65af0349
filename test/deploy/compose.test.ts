import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";

const service = z.object({
  image: z.string(),
  build: z.string().optional(),
  command: z.array(z.string()).default([]),
  environment: z.record(z.string(), z.string()).default({}),
  ports: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  healthcheck: z.object({ test: z.array(z.string()) }).optional(),
  depends_on: z.record(z.string(), z.object({ condition: z.string() })).default({}),
  stop_grace_period: z.string().optional(),
  restart: z.string(),
});
const compose = z.strictObject({
  name: z.string(),
  services: z.strictObject({ redis: service, postgres: service, holdfast: service }),
  volumes: z.record(z.string(), z.null()),
});

const text = readFileSync(join(import.meta.dirname, "../../docker-compose.yml"), "utf8");
const { services, volumes } = compose.parse(parse(text));

describe("docker-compose.yml", () => {
  it("runs Redis bounded, evicting, persistent and watched", () => {
    const { image, command, healthcheck } = services.redis;
    expect(image).toBe("redis:7");
    expect(command.join(" ")).toBe(
      "redis-server --maxmemory 1gb --maxmemory-policy allkeys-lru --appendonly yes --appendfsync everysec",
    );
    expect(healthcheck?.test).toEqual(["CMD", "redis-cli", "ping"]);
  });

  it("runs Postgres 16, watched", () => {
    expect(services.postgres.image).toBe("postgres:16");
    expect(services.postgres.healthcheck?.test).toContain("pg_isready");
  });

  it("starts Holdfast from this checkout when both are healthy, and points it at them", () => {
    const { build, depends_on, environment } = services.holdfast;
    expect(build).toBe(".");
    expect(depends_on).toEqual({
      redis: { condition: "service_healthy" },
      postgres: { condition: "service_healthy" },
    });
    expect(new URL(environment.REDIS_URL ?? "").host).toBe("redis:6379");
    expect(environment.DATABASE_URL).toMatch(/@postgres:5432\/holdfast$/);
  });

  it("publishes Holdfast to this machine alone, and the servers behind it not at all", () => {
    expect(services.holdfast.ports).toEqual(["127.0.0.1:7420:7420", "127.0.0.1:7421:7421"]);
    expect([...services.redis.ports, ...services.postgres.ports]).toEqual([]);
  });

  it("gives both sides the same password, which the environment can replace", () => {
    const password = services.postgres.environment.POSTGRES_PASSWORD ?? "";
    expect(password).toBe("$" + "{POSTGRES_PASSWORD:-holdfast}");
    expect(services.holdfast.environment.DATABASE_URL).toContain(`:${password}@`);
  });

  it("keeps everything that must survive in named volumes", () => {
    const named = Object.values(services).flatMap((one) => one.volumes.map((volume) => volume.split(":")[0]));
    expect(named.toSorted()).toEqual(Object.keys(volumes).toSorted());
    expect(services.holdfast.volumes).toEqual(["holdfast-data:/data"]);
  });
});
