/**
 * How instances tell each other what changed. Delivery is at most once and unordered between senders; what makes that enough
 * is the gap: whoever may have missed a message is told so, and treats its copies as suspect.
 */
export interface Backplane {
  /** What it is made of, for health: "in process", "redis pub/sub", "postgres notify". */
  readonly kind: string;
  /**
   * Whether messages of others are arriving now: the subscription is up and its own heartbeats come back. False before
   * the first connect and from the moment a gap begins until it ends.
   */
  readonly live: boolean;
  /** Sends to every other instance that listens on the topic. Resolves when sent; rejects when it could not be. */
  publish(topic: string, message: string): Promise<void>;
  /** Messages of other instances (never one's own). Returns the unsubscribe. */
  subscribe(topic: string, onMessage: (message: string) => void): () => void;
  /** Called when a gap begins and again when it ends (`live` tells which); what was sent in between may be lost. */
  onGap(listener: (live: boolean) => void): () => void;
  close(): Promise<void>;
}
