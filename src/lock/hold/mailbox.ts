/**
 * What a stream still has to tell. A reader that is slow gets the newest renewal instead of all of them, and what ends the stream
 * comes last, but in place of what was before it.
 */
export class Mailbox<News, Last> {
  #news: News | undefined;
  #last: Last | undefined;
  #wake: (() => void) | undefined;

  put(news: News): void {
    if (this.#last !== undefined) return;
    this.#news = news;
    this.#wake?.();
  }

  /** The first one counts. */
  end(last: Last): void {
    if (this.#last !== undefined) return;
    this.#last = last;
    this.#news = undefined;
    this.#wake?.();
  }

  /** Waits until there is something. Rejects with the signal's reason, unless there is. */
  async take(signal: AbortSignal): Promise<{ readonly news: News } | { readonly last: Last }> {
    for (;;) {
      if (this.#last !== undefined) return { last: this.#last };
      if (this.#news !== undefined) {
        const news = this.#news;
        this.#news = undefined;
        return { news };
      }
      signal.throwIfAborted();
      await this.#change(signal);
    }
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        this.#wake = undefined;
        resolve();
      };
      this.#wake = done;
      signal.addEventListener("abort", done, { once: true });
    });
  }
}
