import {
  collectDefaultMetrics,
  Counter as PromCounter,
  Gauge as PromGauge,
  Histogram as PromHistogram,
  Registry,
} from "prom-client";

/** Only goes up. */
export interface Counter {
  inc(by?: number): void;
}

export interface Gauge {
  set(value: number): void;
  inc(by?: number): void;
  dec(by?: number): void;
}

export interface Histogram {
  observe(value: number): void;
}

export type Labels<Name extends string> = Readonly<Record<Name, string>>;

/**
 * A metric with its label names. `with` gives the child for one set of label values; look it up once and keep it, because
 * a lookup costs more than counting does.
 */
export interface Family<Name extends string, Child> {
  with(labels: Labels<Name>): Child;
}

export interface Metrics {
  counter<Name extends string = never>(name: string, help: string, labelNames?: readonly Name[]): Family<Name, Counter>;
  gauge<Name extends string = never>(name: string, help: string, labelNames?: readonly Name[]): Family<Name, Gauge>;
  histogram<Name extends string = never>(
    name: string,
    help: string,
    labelNames?: readonly Name[],
    buckets?: readonly number[],
  ): Family<Name, Histogram>;
  /** Runs before each scrape; for gauges that are cheaper to read than to keep. */
  beforeScrape(sample: () => void): void;
  /** The Prometheus text. */
  text(): Promise<string>;
  readonly contentType: string;
}

/** From 100 microseconds, an L1 hit, to 10 seconds. */
const latencyBuckets: readonly number[] = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** Metrics of one server, with those of the process. `defaults: false` leaves the latter out, for tests. */
export function createMetrics(options: { readonly defaults?: boolean } = {}): Metrics {
  const registry = new Registry();
  if (options.defaults !== false) collectDefaultMetrics({ register: registry });
  const samples: (() => void)[] = [];
  const taken = new Map<string, Family<string, unknown>>();

  // Two parts counting into one name would each see half of it.
  function once<Name extends string, Child>(name: string, make: () => Family<Name, Child>): Family<Name, Child> {
    if (taken.has(name)) throw new Error(`metric ${name} is defined twice`);
    const family = make();
    taken.set(name, family);
    return family;
  }

  return {
    contentType: registry.contentType,
    counter: (name, help, labelNames = []) => once(name, () => counterFamily(registry, name, help, labelNames)),
    gauge: (name, help, labelNames = []) => once(name, () => gaugeFamily(registry, name, help, labelNames)),
    histogram: (name, help, labelNames = [], buckets = latencyBuckets) =>
      once(name, () => histogramFamily(registry, name, help, labelNames, buckets)),
    beforeScrape(sample) {
      samples.push(sample);
    },
    async text() {
      for (const sample of samples) sample();
      return registry.metrics();
    },
  };
}

class Cell {
  value = 0;
  inc(by = 1): void {
    this.value += by;
  }
  dec(by = 1): void {
    this.value -= by;
  }
  set(value: number): void {
    this.value = value;
  }
}

/** Children by label values; the same labels give the same child. */
function children<Name extends string, Child>(labelNames: readonly Name[], make: () => Child) {
  const byKey = new Map<string, { readonly labels: Labels<Name>; readonly child: Child }>();
  return {
    all: () => byKey.values(),
    with(labels: Labels<Name>): Child {
      const key = labelNames.map((name) => labels[name]).join("\0");
      const known = byKey.get(key);
      if (known !== undefined) return known.child;
      const child = make();
      byKey.set(key, { labels, child });
      return child;
    },
  };
}

// prom-client hashes and validates the labels at each count, which costs a unary call more than all our other book-keeping.
// So children are plain cells, and prom-client sees them when it is scraped.
function counterFamily<Name extends string>(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly Name[],
): Family<Name, Counter> {
  const cells = children(labelNames, () => new Cell());
  const registers = [registry];
  new PromCounter<Name>({
    name,
    help,
    labelNames,
    registers,
    collect() {
      this.reset();
      for (const { labels, child } of cells.all()) this.inc(labels, child.value);
    },
  });
  return cells;
}

function gaugeFamily<Name extends string>(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly Name[],
): Family<Name, Gauge> {
  const cells = children(labelNames, () => new Cell());
  new PromGauge<Name>({
    name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      for (const { labels, child } of cells.all()) this.set(labels, child.value);
    },
  });
  return cells;
}

class Buckets {
  readonly bounds: readonly number[];
  readonly counts: Float64Array;
  sum = 0;
  count = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const { bounds, counts } = this;
    let at = 0;
    for (let bound = bounds[0]; bound !== undefined && value > bound; bound = bounds[at]) at++;
    counts[at] = (counts[at] ?? 0) + 1;
    this.sum += value;
    this.count++;
  }
}

function histogramFamily<Name extends string>(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly Name[],
  buckets: readonly number[],
): Family<Name, Histogram> {
  const cells = children(labelNames, () => new Buckets(buckets));

  class CellHistogram extends PromHistogram<Name> {
    /** What both the registry's text and `get` are made from. */
    getForPromString() {
      const values = [...cells.all()].flatMap(({ labels, child }) => {
        // Sixteen lines for each of two hundred methods that nobody has called yet would drown the rest.
        if (child.count === 0) return [];
        let seen = 0;
        const rows = [...child.counts].map((count, i) => {
          seen += count;
          return {
            labels: { le: buckets[i] ?? "+Inf" },
            sharedLabels: labels,
            value: seen,
            metricName: `${name}_bucket`,
          };
        });
        return [
          ...rows,
          { labels: {}, sharedLabels: labels, value: child.sum, metricName: `${name}_sum` },
          { labels: {}, sharedLabels: labels, value: seen, metricName: `${name}_count` },
        ];
      });
      return Promise.resolve({ name, help, type: "histogram", aggregator: "sum", values });
    }
  }

  new CellHistogram({ name, help, labelNames, buckets: [...buckets], registers: [registry] });
  return cells;
}
