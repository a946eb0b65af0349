import { randomBytes } from "node:crypto";
import type { Backplane } from "./backplane.ts";
import { CHANNEL_PREFIX, decodePayload, encodePayload, type Frame, topicChannel } from "./backplane-frame.ts";
import { createListeners, createSequences, type Listeners } from "./backplane-topics.ts";
import { UnavailableError } from "./failure.ts";
import type { Log } from "./log.ts";

/** A backplane over a network. Also hands out frames, for those who publish inside their own atomic step. */
export interface WireBackplane extends Backplane {
  /** What to publish, and on which channel, so that the other instances receive this message. May be appended to. */
  frame(topic: string, message: string): Frame;
}

/** The part that differs between Redis and Postgres. It reconnects by itself. */
export interface Transport {
  /** Payloads published on one channel arrive in this order. */
  publish(frame: Frame): Promise<void>;
  /** A heartbeat: may take another way than the messages, when there are several. */
  beat(frame: Frame): Promise<void>;
  listen(channel: string): void;
  unlisten(channel: string): void;
  /** Gives the listening connection up for a new one. */
  renew(why: string): void;
  close(): Promise<void>;
}

export interface TransportHandlers {
  readonly onMessage: (channel: string, payload: string) => void;
  /** Every channel is listened to, after a connect. */
  readonly onUp: () => void;
  readonly onDown: () => void;
}

export interface WireOptions {
  readonly kind: string;
  /** Names this instance, for logs of the others. No spaces. */
  readonly instanceId: string;
  readonly heartbeatMs: number;
  readonly channelPrefix?: string;
  readonly log?: Log;
  readonly connect: (handlers: TransportHandlers) => Transport;
}

/** A heartbeat that did not come back before this many more were due is lost, and so may be the messages of that time. */
const MISSED_BEATS = 3;

export function createWireBackplane(options: WireOptions): WireBackplane {
  const { kind, instanceId, log, channelPrefix = CHANNEL_PREFIX } = options;
  if (instanceId === "" || /\s/.test(instanceId)) throw new TypeError("instanceId must be a word without spaces");
  // Tells this life of the instance from its former ones, which counted their messages too; and saves two that were given the
  // same name from being deaf to each other.
  const sender = `${instanceId}.${randomBytes(6).toString("base64url")}`;
  const topics = new Map<string, Listeners<string>>();
  const gapListeners = createListeners<boolean>(log, "backplane gaps");
  const sequences = createSequences();
  const sent = new Map<string, number>();
  // A channel of one's own: each instance hears its own heart only.
  const beatChannel = `${channelPrefix}:beat:${sender}`;
  const awaited = new Set<number>();
  let beats = 0;
  let up = false;
  let live = false;
  let closed = false;

  const transport = options.connect({
    onMessage: (channel, payload) => {
      if (channel === beatChannel) beatReturned(Number(payload));
      else receive(channel, payload);
    },
    onUp: () => {
      if (closed) return;
      up = true;
      awaited.clear();
      sendBeat();
    },
    onDown: () => {
      up = false;
      beginGap("the connection was lost");
    },
  });
  transport.listen(beatChannel);
  const timer = setInterval(onTick, options.heartbeatMs).unref();

  function onTick(): void {
    if (!up) return;
    for (const beat of awaited) {
      if (beat > beats - MISSED_BEATS) continue;
      beginGap("heartbeats do not come back");
      up = false;
      awaited.clear();
      transport.renew("heartbeats do not come back");
      return;
    }
    sendBeat();
  }

  function sendBeat(): void {
    beats += 1;
    awaited.add(beats);
    // One that could not be sent will not come back, and is noticed by that.
    transport.beat({ channel: beatChannel, payload: String(beats) }).catch(() => {});
  }

  function beatReturned(beat: number): void {
    if (!awaited.delete(beat) || live || !up) return;
    live = true;
    log?.info({ backplane: kind }, "backplane is live");
    gapListeners.call(true);
  }

  function beginGap(why: string): void {
    sequences.forget();
    if (!live) return;
    live = false;
    if (closed) return;
    log?.warn({ backplane: kind, why }, "backplane may have lost messages");
    gapListeners.call(false);
  }

  function receive(channel: string, payload: string): void {
    const listeners = topics.get(channel);
    const frame = decodePayload(payload);
    if (listeners === undefined || frame === undefined || frame.sender === sender) return;
    if (frame.sequence !== undefined && sequences.missed(channel, frame.sender, frame.sequence) && live) {
      beginGap(`messages of ${frame.sender} are missing`);
      sequences.missed(channel, frame.sender, frame.sequence);
      live = true;
      gapListeners.call(true);
    }
    listeners.call(frame.message);
  }

  return {
    kind,
    get live() {
      return live;
    },
    frame: (topic, message) => ({
      channel: topicChannel(topic, channelPrefix),
      payload: encodePayload(sender, undefined, message),
    }),
    publish: async (topic, message) => {
      if (closed) throw new UnavailableError("BACKPLANE_UNAVAILABLE", "the backplane was closed");
      const channel = topicChannel(topic, channelPrefix);
      // Used up even when sending fails: it may have arrived all the same, and if not the others learn of it by the hole.
      const sequence = (sent.get(channel) ?? 0) + 1;
      sent.set(channel, sequence);
      await transport.publish({ channel, payload: encodePayload(sender, sequence, message) });
    },
    subscribe: (topic, onMessage) => {
      const channel = topicChannel(topic, channelPrefix);
      let listeners = topics.get(channel);
      if (listeners === undefined) {
        listeners = createListeners<string>(log, `topic ${topic}`);
        topics.set(channel, listeners);
        transport.listen(channel);
      }
      const remove = listeners.add(onMessage);
      return () => {
        remove();
        if (topics.get(channel)?.size !== 0) return;
        topics.delete(channel);
        transport.unlisten(channel);
      };
    },
    onGap: gapListeners.add,
    close: async () => {
      if (closed) return;
      closed = true;
      live = false;
      clearInterval(timer);
      await transport.close();
    },
  };
}
