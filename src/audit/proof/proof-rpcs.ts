import { create } from "@bufbuild/protobuf";
import {
  type AuditCheckpoint,
  type AuditConsistencyCheck,
  AuditConsistencyProofSchema,
  type AuditInclusionCheck,
  AuditInclusionProofSchema,
  type AuditRangeCheck,
  AuditRangeReportSchema,
  type AuditService,
  AuditServiceCheckpointResponseSchema,
  type AuditServiceVerifyResponse,
  AuditServiceVerifyResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import { Failure, UnavailableError } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import type { Archive, Archived } from "../archive/archive.ts";
import { HASH_BYTES, leafHash } from "../archive/merkle.ts";
import type { Settled } from "../intake/settled.ts";
import { idOf, type RecordId } from "../record/record.ts";
import { recordIdOf } from "../record/record-id.ts";
import { signCheckpoint } from "./checkpoint.ts";
import { verifyConsistency, verifyInclusion } from "./proof.ts";
import type { SigningKey } from "./signing-key.ts";
import { createTree, DamagedTreeError, headRoot, sameHash, type TreeHashes, type TreeHead } from "./tree.ts";
import { checkRange } from "./tree-check.ts";
import type { LeafStore } from "./tree-leaf.ts";

export interface ProofRpcsOptions {
  readonly archive: Pick<Archive, "kind" | "find">;
  readonly store: TreeHashes & LeafStore;
  readonly signingKey: SigningKey;
  /** Which log the checkpoints are of: one line. */
  readonly origin: string;
  readonly settled: Settled;
  readonly clock: Clock;
}

const RANGE_LEAVES = { usual: 10_000, most: 100_000 } as const;
const DAMAGED_LEAVES = 100;
const SOON_MS = 1000;

type ProofRpcs = Required<Pick<Rpcs<typeof AuditService>, "checkpoint" | "verify">>;

/** The RPCs that prove what the archive holds. */
export function createProofRpcs(options: ProofRpcsOptions): ProofRpcs {
  const { archive, store, signingKey, origin, settled, clock } = options;
  if (/[\n\r]/.test(origin)) throw new RangeError("the origin of a log must be one line");
  const tree = createTree(store);

  /** Signs nothing that the archive itself contradicts. */
  async function checkpointAt(size: number, head: TreeHead): Promise<AuditCheckpoint> {
    const rootHash = await tree.rootAt(size);
    if (size === head.size && !sameHash(rootHash, headRoot(head))) {
      throw new DamagedTreeError("its hashes do not lead to the root of its head");
    }
    return signCheckpoint({ origin, treeSize: size, rootHash, signTime: clock.now() }, signingKey);
  }

  /** The record, if it gets into the archive while we wait for what was acknowledged. */
  async function archived(id: RecordId, signal: AbortSignal): Promise<Archived> {
    const [found] = await archive.find([id]);
    if (found !== undefined) return found;
    const doubt = await doubtAfter(settled(signal));
    const [late] = await archive.find([id]);
    if (late !== undefined) return late;
    if (doubt !== undefined) throw notArchived(id, doubt);
    throw new Failure("not_found", "RECORD_NOT_FOUND", `there is no audit record ${idOf(id)}`, {
      metadata: { id: idOf(id) },
    });
  }

  async function inclusion(check: AuditInclusionCheck, call: CallContext): Promise<AuditServiceVerifyResponse> {
    const fields = new Fields();
    const id = recordIdOf(fields, "inclusion.id", check.id);
    fields.done();
    const row = await archived(id, call.signal);
    const head = await store.head();
    const treeSize = sizeOf(check.treeSize, head);
    const { leafIndex, leaf } = row;
    return await proving(async (answer) => {
      answer.checkpoint = await checkpointAt(treeSize, head);
      const [hash] = await store.hashes(0, leafIndex, 1);
      if (hash === undefined) throw new DamagedTreeError(`leaf ${leafIndex} is missing`);
      const isInTree = leafIndex < treeSize;
      const path = isInTree ? await tree.inclusionPath(leafIndex, treeSize) : [];
      const proof = { leafIndex: BigInt(leafIndex), leafData: leaf ?? new Uint8Array(), leafHash: hash, path };
      answer.proof = { case: "inclusion", value: create(AuditInclusionProofSchema, proof) };
      if (!isInTree) return `the record is leaf ${leafIndex}, which a tree of ${treeSize} leaves does not have`;
      if (leaf !== null && !sameHash(leafHash(leaf), hash)) return "the record is not what was hashed";
      const root = answer.checkpoint.rootHash;
      if (!verifyInclusion({ leafIndex, treeSize, leafHash: hash, path, root })) {
        return "the path does not lead from the record to the root";
      }
      return "";
    });
  }

  async function consistency(check: AuditConsistencyCheck): Promise<AuditServiceVerifyResponse> {
    const fields = new Fields();
    const { oldTreeSize, oldRootHash, newTreeSize } = check;
    if (oldTreeSize === 0n) fields.refuse("consistency.old_tree_size", "must be more than 0");
    if (newTreeSize !== 0n && newTreeSize < oldTreeSize) {
      fields.refuse("consistency.new_tree_size", "must not be less than old_tree_size");
    }
    if (oldRootHash.length !== 0 && oldRootHash.length !== HASH_BYTES) {
      fields.refuse("consistency.old_root_hash", `is ${oldRootHash.length} bytes long; wanted ${HASH_BYTES}, or none`);
    }
    fields.done();
    const head = await store.head();
    const newSize = sizeOf(newTreeSize, head);
    return await proving(async (answer) => {
      answer.checkpoint = await checkpointAt(newSize, head);
      if (oldTreeSize > BigInt(newSize)) {
        return `the archive has ${newSize} leaves, and the older tree had ${oldTreeSize}`;
      }
      const oldSize = Number(oldTreeSize);
      const oldRoot = await tree.rootAt(oldSize);
      const path = await tree.consistencyPath(oldSize, newSize);
      const proof = { oldTreeSize, oldRootHash: oldRoot, path };
      answer.proof = { case: "consistency", value: create(AuditConsistencyProofSchema, proof) };
      if (oldRootHash.length > 0 && !sameHash(oldRootHash, oldRoot)) {
        return `the first ${oldSize} leaves are not those of the older tree: its root was another`;
      }
      const newRoot = answer.checkpoint.rootHash;
      if (!verifyConsistency({ oldSize, newSize, oldRoot, newRoot, path })) {
        return "the path does not lead from the older root to the newer one";
      }
      return "";
    });
  }

  async function range(check: AuditRangeCheck, { signal }: CallContext): Promise<AuditServiceVerifyResponse> {
    const fields = new Fields();
    const { leafCount } = check;
    if (leafCount > RANGE_LEAVES.most) {
      fields.refuse("range.leaf_count", `is ${leafCount}; the limit is ${RANGE_LEAVES.most}`);
    }
    fields.done();
    const head = await store.head();
    const first = Number(check.firstLeafIndex);
    const end = Math.min(first + (leafCount || RANGE_LEAVES.usual), head.size);
    const report = create(AuditRangeReportSchema, {
      checked: Math.max(0, end - first),
      nextLeafIndex: end < head.size ? BigInt(end) : 0n,
    });
    return await proving(async (answer) => {
      answer.proof = { case: "range", value: report };
      let problem = "";
      let more = 0;
      const wrong = (fault: string) => {
        if (problem === "") problem = fault;
        else more++;
      };
      const damaged = (leafIndex: number, fault: string) => {
        wrong(`leaf ${leafIndex}: ${fault}`);
        if (report.damagedLeafIndexes.length < DAMAGED_LEAVES) report.damagedLeafIndexes.push(BigInt(leafIndex));
      };
      await checkRange(
        store,
        { head, first: Math.min(first, end), end },
        {
          leaf({ leafIndex, leaf }, fault) {
            if (leaf === null) report.retired++;
            if (fault !== undefined) damaged(leafIndex, fault);
          },
          missingLeaf: (leafIndex) => damaged(leafIndex, "it is missing"),
          tree: wrong,
          reached: () => signal.throwIfAborted(),
        },
      );
      const checkpoint = checkpointAt(head.size, head);
      answer.checkpoint = await (problem === "" ? checkpoint : checkpoint.catch(nothingIfDamaged));
      return more === 0 ? problem : `${problem}; and ${more} more`;
    });
  }

  return {
    async checkpoint(request, call) {
      const head = await store.head();
      const checkpoint = await checkpointAt(sizeOf(request.treeSize, head), head);
      call.servedBy(archive.kind);
      return create(AuditServiceCheckpointResponseSchema, { checkpoint });
    },
    async verify({ check }, call) {
      const answer = await answerOf(check, call);
      call.servedBy(archive.kind);
      return answer;
    },
  };

  function answerOf(
    check: Parameters<ProofRpcs["verify"]>[0]["check"],
    call: CallContext,
  ): Promise<AuditServiceVerifyResponse> {
    switch (check.case) {
      case "inclusion":
        return inclusion(check.value, call);
      case "consistency":
        return consistency(check.value);
      case "range":
        return range(check.value, call);
      default: {
        const fields = new Fields();
        fields.refuse("check", "is required: set inclusion, consistency or range");
        fields.done();
        throw new Error("a check that is missing was not refused");
      }
    }
  }
}

/** The answer of a proof whose `work` returns what is wrong. That the archive is damaged is an answer, too. */
async function proving(
  work: (answer: AuditServiceVerifyResponse) => Promise<string>,
): Promise<AuditServiceVerifyResponse> {
  const answer = create(AuditServiceVerifyResponseSchema);
  try {
    answer.problem = await work(answer);
  } catch (error) {
    if (!(error instanceof DamagedTreeError)) throw error;
    answer.problem = error.message;
  }
  answer.valid = answer.problem === "";
  return answer;
}

function nothingIfDamaged(error: unknown): undefined {
  if (!(error instanceof DamagedTreeError)) throw error;
}

/** 0 asks for the whole archive. */
function sizeOf(asked: bigint, { size }: TreeHead): number {
  if (asked === 0n) return size;
  if (asked <= BigInt(size)) return Number(asked);
  throw new Failure("out_of_range", "TREE_TOO_SMALL", `the archive has ${size} leaves, fewer than ${asked}`, {
    metadata: { tree_size: String(size) },
  });
}

/** Why something may still be on its way after all that waiting; undefined: nothing is. */
async function doubtAfter(waiting: ReturnType<Settled>): Promise<UnavailableError | undefined> {
  try {
    const { degraded } = await waiting;
    return degraded ? new UnavailableError("QUEUE_NOT_SEEN", "the queue cannot be asked") : undefined;
  } catch (error) {
    if (error instanceof UnavailableError) return error;
    throw error;
  }
}

function notArchived(id: RecordId, cause: UnavailableError): Failure {
  return new Failure(
    "precondition",
    "NOT_ARCHIVED",
    `the audit record ${idOf(id)} is not in the archive, and records that were acknowledged may still be on their way to it`,
    { retryAfterMs: cause.retryAfterMs ?? SOON_MS, metadata: { id: idOf(id) }, cause },
  );
}
