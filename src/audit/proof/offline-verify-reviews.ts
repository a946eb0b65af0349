import type { AuditEntry } from "../../gen/holdfast/v1/audit_pb.js";
import { open } from "../record/leaf.ts";
import { idOf, parseId, REVIEW_PRODUCER, type RecordId } from "../record/record.ts";
import { statusName, transitionOf } from "../review/reviews.ts";
import { type LeafRow, reviewOf } from "./tree-leaf.ts";

export interface RowFinder {
  /** In the order asked for; undefined where there is none. */
  rows(ids: readonly RecordId[]): Promise<readonly (LeafRow | undefined)[]>;
}

/** Whether each record shows the review that the log says was the last, and nothing else. */
export interface ReviewCheck {
  note(row: LeafRow): void;
  /** Checks what was noted since the last time. */
  check(): Promise<void>;
}

/**
 * Looks both ways: a record that shows a review needs the record of it, and a record of a review needs one that shows it or a later
 * one. Pairs are read when they are checked, so a review that is made meanwhile is seen whole.
 */
export function createReviewCheck(finder: RowFinder, damage: (row: LeafRow, fault: string) => void): ReviewCheck {
  let reviewed: LeafRow[] = [];
  let decisions: LeafRow[] = [];

  /** Rows for items that each name one. */
  async function lookUp<T>(items: readonly T[], nameOf: (item: T) => RecordId | undefined) {
    const named = items.flatMap((item) => {
      const id = nameOf(item);
      return id === undefined ? [] : [{ item, id }];
    });
    const rows = named.length === 0 ? [] : await finder.rows(named.map(({ id }) => id));
    return named.map(({ item, id }, at) => ({ item, id, row: rows[at] }));
  }

  async function checkReviewed(): Promise<void> {
    const shown = reviewed.flatMap((row) => {
      const review = reviewOf(row);
      const id = review === undefined || review === "garbled" ? undefined : parseId(review.recordId);
      if (review === undefined || review === "garbled" || id?.producer !== REVIEW_PRODUCER) {
        damage(row, "the review it shows cannot be read");
        return [];
      }
      return [{ row, review, id }];
    });
    for (const { item, id, row: decision } of await lookUp(shown, (one) => one.id)) {
      const { row, review } = item;
      const entry = decision === undefined ? undefined : entryOf(decision);
      const transition = transitionOf(review.decision);
      if (entry === undefined) {
        damage(row, `it shows the review ${idOf(id)}, which is not there`);
      } else if (
        entry.action !== transition?.action ||
        entry.resource?.id !== idOf(row) ||
        entry.actor !== review.reviewer ||
        entry.attributes?.comment !== review.comment
      ) {
        damage(row, `the review it shows is not what ${idOf(id)} says`);
      } else if (row.status !== transition.to) {
        damage(row, `its status is ${statusName(row.status)}, but ${idOf(id)} made it ${statusName(transition.to)}`);
      }
    }
  }

  async function checkDecisions(): Promise<void> {
    const found = await lookUp(decisions, (row) => parseId(entryOf(row)?.resource?.id ?? ""));
    for (const { item: decision, id, row } of found) {
      if (row === undefined) {
        damage(decision, `it is a review of ${idOf(id)}, which is not there`);
        continue;
      }
      // Of a retired record nothing is left to compare.
      if (row.leaf === null) continue;
      const review = reviewOf(row);
      const last = review === undefined || review === "garbled" ? undefined : parseId(review.recordId);
      if (last === undefined || last.sequence < decision.sequence) {
        damage(row, `it does not show the review ${idOf(decision)}, nor a later one`);
      }
    }
  }

  return {
    note(row) {
      if (row.leaf === null) return;
      if (row.review !== null) reviewed.push(row);
      if (row.producer === REVIEW_PRODUCER) decisions.push(row);
    },
    async check() {
      await checkReviewed();
      await checkDecisions();
      reviewed = [];
      decisions = [];
    },
  };
}

function entryOf({ leaf }: LeafRow): AuditEntry | undefined {
  if (leaf === null) return undefined;
  try {
    return open(leaf).entry;
  } catch {
    // Told of with the record itself.
    return undefined;
  }
}
