import { setTimeout as delay } from "node:timers/promises";
import type { AuditCheckpoint, AuditServiceVerifyResponse } from "../../src/gen/holdfast/v1/audit_pb.js";
import type { ArchiveReader } from "../support/audit-archive.ts";
import type { SignedRoot } from "../support/audit-checker.ts";
import { type AuditClient, CallFailed, createAuditClient } from "../support/audit-client.ts";
import { hashOfLeaf, includes, isGrownFrom, isSigned } from "../support/audit-tree.ts";
import type { HoldfastProcess } from "../support/holdfast-process.ts";
import { createRandom } from "../support/load-child.ts";

/** Somebody outside who keeps what the instances sign. */
export interface Witness extends AsyncDisposable {
  readonly roots: readonly SignedRoot[];
  stop(): Promise<void>;
}

/** Asks one of the instances for a checkpoint, again and again; one that is down is asked another time. */
export function createWitness(instances: readonly HoldfastProcess[], seed: number): Witness {
  const random = createRandom(seed * 43);
  const clients = instances.map(({ grpcAddress }) => createAuditClient(grpcAddress, { deadlineMs: 3_000 }));
  const roots: SignedRoot[] = [];
  let stopping = false;

  async function keepAsking(): Promise<void> {
    while (!stopping) {
      const at = random(clients.length);
      const checkpoint = await clients[at]?.checkpoint().catch(unlessItFailed);
      if (checkpoint !== undefined) roots.push(signedRoot(checkpoint, `the checkpoint of instance ${at + 1}`));
      await delay(300);
    }
    for (const client of clients) client[Symbol.dispose]();
  }

  const asking = keepAsking();
  const stop = () => {
    stopping = true;
    return asking;
  };
  return { roots, stop, [Symbol.asyncDispose]: stop };
}

function unlessItFailed(error: unknown): undefined {
  if (!(error instanceof CallFailed)) throw error;
}

function signedRoot(checkpoint: AuditCheckpoint, from: string): SignedRoot {
  const { treeSize, rootHash } = checkpoint;
  // One that is not signed rightly states nothing: its root cannot be that of any tree.
  const stated = isSigned(checkpoint) ? rootHash : new Uint8Array();
  return { treeSize: Number(treeSize), rootHash: stated, from };
}

export interface ProofAccount {
  readonly checkpoints: number;
  readonly inclusions: number;
  readonly consistencies: number;
  /** Leaves that the server read and hashed again itself. */
  readonly checkedByServer: number;
  readonly problems: readonly string[];
  /** What each instance signs now. */
  readonly roots: readonly SignedRoot[];
}

const PROOFS = 12;
const RANGE = 50_000;

/** Asks for proofs and checks them without the server's help, against the checkpoints that were witnessed. */
export async function proofsOf(
  instances: readonly HoldfastProcess[],
  archive: ArchiveReader,
  witnessed: readonly SignedRoot[],
): Promise<ProofAccount> {
  const problems: string[] = [];
  const roots: SignedRoot[] = [];
  const counts = { inclusions: 0, consistencies: 0, checkedByServer: 0 };
  /** A call that is to succeed; one that does not is a problem like any other. */
  async function asked<T>(who: string, call: Promise<T>): Promise<T | undefined> {
    return call.catch((error: unknown) => {
      if (!(error instanceof CallFailed)) throw error;
      problems.push(`${who}: ${error.message}`);
      return undefined;
    });
  }

  for (const [at, { grpcAddress }] of instances.entries()) {
    using client = createAuditClient(grpcAddress);
    const newest = signedRoot(await client.checkpoint(), `the last checkpoint of instance ${at + 1}`);
    roots.push(newest);
    const step = Math.max(1, Math.floor(newest.treeSize / PROOFS));
    for (let leafIndex = at % step; leafIndex < newest.treeSize; leafIndex += step) {
      counts.inclusions++;
      const who = `instance ${at + 1}, leaf ${leafIndex}`;
      const problem = await asked(who, inclusionProblem(client, archive, leafIndex, newest));
      if (problem !== undefined) problems.push(`${who}: ${problem}`);
    }
    const every = Math.max(1, Math.floor(witnessed.length / PROOFS));
    for (const older of witnessed.filter(({ treeSize }, n) => treeSize > 0 && n % every === at % every)) {
      counts.consistencies++;
      const who = `instance ${at + 1}, consistency with ${older.treeSize} leaves`;
      const proof = await asked(who, client.consistency(BigInt(older.treeSize), BigInt(newest.treeSize)));
      if (proof === undefined) continue;
      const path = proof.proof.case === "consistency" ? proof.proof.value.path : [];
      if (!isGrownFrom(sized(older), sized(newest), path) || !proof.valid || !leadsTo(proof, newest)) {
        problems.push(`${who}: not proved; ${proof.problem}`);
      }
    }
    for (let next = 0n; next < newest.treeSize; ) {
      const who = `instance ${at + 1}, from leaf ${next}`;
      const range = await asked(who, client.range(next, RANGE));
      if (range?.proof.case !== "range" || range.proof.value.checked === 0) break;
      if (!range.valid) problems.push(`${who}: ${range.problem}`);
      const { proof } = range;
      counts.checkedByServer += proof.value.checked;
      next += BigInt(proof.value.checked);
    }
  }
  return { checkpoints: witnessed.length, ...counts, problems, roots };
}

async function inclusionProblem(
  client: AuditClient,
  archive: ArchiveReader,
  leafIndex: number,
  newest: SignedRoot,
): Promise<string | undefined> {
  const [row] = await archive.query("SELECT producer, sequence FROM audit_record WHERE leaf_index = $1", [leafIndex]);
  const response = await client.inclusion(`${row?.producer}/${row?.sequence}`, BigInt(newest.treeSize));
  const { proof, valid, problem } = response;
  if (proof.case !== "inclusion") return "no proof";
  const { leafData, leafHash, path } = proof.value;
  if (Number(proof.value.leafIndex) !== leafIndex) return `the proof is of leaf ${proof.value.leafIndex}`;
  if (!hashOfLeaf(leafData).equals(leafHash)) return "its data are not what was hashed";
  if (!includes(leafHash, leafIndex, sized(newest), path)) return "the proof does not lead to the root";
  return valid && leadsTo(response, newest) ? undefined : `called invalid: ${problem}`;
}

const sized = ({ treeSize, rootHash }: SignedRoot) => ({ size: treeSize, root: rootHash });

function leadsTo({ checkpoint }: AuditServiceVerifyResponse, { treeSize, rootHash }: SignedRoot): boolean {
  if (checkpoint === undefined || !isSigned(checkpoint)) return false;
  return Number(checkpoint.treeSize) === treeSize && Buffer.from(checkpoint.rootHash).equals(rootHash);
}
