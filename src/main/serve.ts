import { banner } from "../cli/banner.ts";
import { version } from "../cli/version.ts";
import type { Config } from "../config.ts";
import { createHealthPages } from "../health/page.ts";
import { createHealthService } from "../health/service.ts";
import { createLog } from "../infra/log.ts";
import { createMetrics } from "../infra/metrics.ts";
import { observeDatabase } from "../infra/observed-database.ts";
import { createServers } from "../server/server.ts";
import { startAudit } from "./audit.ts";
import { startCache } from "./cache.ts";
import { startConversations } from "./conversation.ts";
import { startCoordination } from "./coordination.ts";
import { startDatabase } from "./database.ts";
import { startDedup } from "./dedup.ts";
import { startFencing } from "./fencing.ts";
import { startHealth } from "./health.ts";
import { startKeys } from "./keys.ts";
import { startLocks } from "./lock.ts";
import { recordForced } from "./lock-record.ts";
import { limitOldGeneration, limitYoungGeneration, ownMemory, returnMemory, returnMemoryWhenIdle } from "./memory.ts";
import { startRateLimits } from "./ratelimit.ts";
import { openToStrangers, servingFacts, servingInWords } from "./serving.ts";
import { dieOfDefects, listenToSignals } from "./signals.ts";
import { tellStartFailure } from "./start-failure.ts";
import { isNamed, readCertificate, readKey } from "./tls.ts";

/** Puts the parts together, serves until told to stop, and takes them apart in the reverse order. */
export async function serve(config: Config, doubts: readonly string[]): Promise<number> {
  const log = createLog({ level: config.logLevel });
  dieOfDefects(log);
  for (const doubt of doubts) log.warn({}, doubt);
  const signals = listenToSignals(log);
  await using parts = new AsyncDisposableStack();
  const startTime = Date.now();
  const { topology, instanceId, server } = config;
  try {
    const tls = readTls(server.tls);
    const metrics = createMetrics();
    const keys = await startKeys({ config, log, signals, parts });
    const observed = observeDatabase(await startDatabase(config, log, signals.stop, parts));
    const database = parts.adopt(observed.database, (it) => it.close());
    const { redis, backplane, frame, self } = await startCoordination({ config, log, database, startTime, parts });
    const audit = await startAudit({ config, log, metrics, database, redis, backplane, parts });
    // Locks are there before those whose writes ask for them.
    const record = recordForced(audit.append);
    const locks = await startLocks({ config, log, metrics, database, redis, backplane, frame, record, parts });
    const { fences, counted } = startFencing({ log, metrics, database, locks, parts });
    const cache = await startCache({ config, log, metrics, database, redis, backplane, frame, fences, parts });
    const conversations = await startConversations({ config, log, metrics, database, redis, backplane, fences, parts });
    const rateLimits = await startRateLimits({
      ...{ config, environment: process.env, log, metrics, database, redis, backplane, self, signals, parts },
    });
    const dedup = await startDedup({ config, log, metrics, database, redis, parts });
    const identity = { instanceId, topology, version, startTime };
    const health = parts.adopt(
      startHealth({
        ...{ config, log, self, database, redis, backplane, cacheHealth: cache.health, audit, locks },
        onSqlUnavailable: observed.onUnavailable,
      }),
      (it) => it.close(),
    );
    const pages = createHealthPages({ health, identity });
    const servers = createServers({
      services: [
        ...cache.services.map(counted),
        audit.service,
        counted(conversations),
        locks.service,
        rateLimits,
        dedup,
        createHealthService({ health, identity }),
      ],
      grpc: { host: server.host, port: server.grpcPort },
      http: { host: server.host, port: server.httpPort },
      metrics,
      log,
      health: pages,
      authenticator: keys?.authenticator,
      tls,
      corsOrigins: server.corsOrigins,
      maxMessageBytes: server.maxMessageBytes,
    });
    health.onChange(() => servers.setServing(pages.ready()));
    returnMemory();
    limitOldGeneration();
    parts.defer(limitYoungGeneration());
    const ports = await servers.start();
    parts.defer(
      returnMemoryWhenIdle(
        config.cache.l1.maxBytes,
        ownMemory(() => servers.calls),
      ),
    );
    parts.defer(async () => {
      // A drain waits for calls, which must not wait for a lease that is to be filled elsewhere, nor for a lock.
      cache.endWaiting();
      servers.setServing(false);
      await locks.handOver(config.server.drainTimeoutMs);
      await servers.drain(config.server.drainTimeoutMs);
    });
    const serving = servingFacts(config, keys?.count);
    log.info({ ...serving, ...ports, topology, version, instanceId, pid: process.pid }, "serving");
    const open = openToStrangers(config);
    if (open !== undefined) log.warn({}, open);
    if (config.banner || process.stdout.isTTY) {
      const facts = { version, topology, host: server.host, tls: server.tls !== undefined, ...ports };
      process.stdout.write(banner({ ...facts, keys: keys !== undefined, behind: servingInWords(serving) }));
    }
  } catch (err) {
    if (signals.stop.aborted) return 0;
    tellStartFailure(err, log);
    return 1;
  }
  await signals.stopped;
  await parts.disposeAsync();
  log.info({}, "stopped");
  return 0;
}

function readTls(files: Config["server"]["tls"]) {
  if (!files) return undefined;
  const cert = { setting: "HOLDFAST_TLS_CERT", file: files.certFile };
  const clientCa = { setting: "HOLDFAST_TLS_CLIENT_CA", file: files.clientCaFile };
  return {
    cert: readCertificate(cert),
    key: readKey({ setting: "HOLDFAST_TLS_KEY", file: files.keyFile }, cert),
    ...(isNamed(clientCa) && { clientCa: readCertificate(clientCa) }),
  };
}
