import { type SearchKeys, TextHash } from "./keys.ts";

/** What an entry says of itself in words; an empty text is not stated. */
export interface EntryWords {
  readonly actor: string;
  readonly action: string;
  readonly resourceType: string;
  readonly resourceId: string;
  readonly traceId: string;
  readonly service: string;
}

/**
 * Where in the bytes of an entry the texts are that it is searched by. Most records are queued and archived without any of these
 * ever becoming a string.
 */
export class EntryTexts {
  actorAt = 0;
  actorEnd = 0;
  actionAt = 0;
  actionEnd = 0;
  typeAt = 0;
  typeEnd = 0;
  idAt = 0;
  idEnd = 0;
  traceAt = 0;
  traceEnd = 0;
  serviceAt = 0;
  serviceEnd = 0;
  #bytes: Buffer;
  /** What the places count from. */
  #from = 0;
  readonly #entryAt: number | undefined;

  /** The entry begins at this place of the bytes; undefined: they are not an entry. */
  constructor(bytes: Buffer, entryAt: number | undefined) {
    this.#bytes = bytes;
    this.#entryAt = entryAt;
  }

  static of({ actor, action, resourceType, resourceId, traceId, service }: EntryWords): EntryTexts {
    const parts = [actor, action, resourceType, resourceId, traceId, service].map((text) => Buffer.from(text));
    const made = new EntryTexts(Buffer.concat(parts), undefined);
    const ends: number[] = [];
    for (const part of parts) ends.push((ends.at(-1) ?? 0) + part.length);
    const [actorEnd = 0, actionEnd = 0, typeEnd = 0, idEnd = 0, traceEnd = 0, serviceEnd = 0] = ends;
    Object.assign(made, { actorEnd, actionAt: actorEnd, actionEnd, typeAt: actionEnd, typeEnd, idAt: typeEnd, idEnd });
    return Object.assign(made, { traceAt: idEnd, traceEnd, serviceAt: traceEnd, serviceEnd });
  }

  /** The entry is a part of these bytes now; those where it was found, which may be many more, may be given up. */
  moveTo(bytes: Buffer, entryAt: number): void {
    if (this.#entryAt === undefined) return;
    this.#bytes = bytes;
    this.#from = entryAt - this.#entryAt;
  }

  get action(): string {
    return this.#bytes.toString("utf8", this.#from + this.actionAt, this.#from + this.actionEnd);
  }

  keys(): SearchKeys {
    const hasResource = this.typeEnd > this.typeAt;
    return {
      actor: this.#key(this.actorAt, this.actorEnd),
      action: this.#key(this.actionAt, this.actionEnd),
      resource: hasResource ? this.#resource() : undefined,
      resourceType: hasResource ? this.#key(this.typeAt, this.typeEnd) : undefined,
      trace: this.traceEnd > this.traceAt ? this.#key(this.traceAt, this.traceEnd) : undefined,
      service: this.serviceEnd > this.serviceAt ? this.#key(this.serviceAt, this.serviceEnd) : undefined,
    };
  }

  #key(start: number, end: number): number {
    const hash = new TextHash();
    hash.bytes(this.#bytes, this.#from + start, this.#from + end);
    return hash.key();
  }

  #resource(): number {
    const hash = new TextHash();
    hash.bytes(this.#bytes, this.#from + this.typeAt, this.#from + this.typeEnd);
    hash.bytes(this.#bytes, this.#from + this.idAt, this.#from + this.idEnd);
    return hash.key();
  }
}
