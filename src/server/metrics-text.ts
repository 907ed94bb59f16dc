export type Labels = Readonly<Record<string, string>>;
type Kind = 'counter' | 'gauge' | 'histogram';

/**
 * Writes Prometheus' text format. (The client libraries count for themselves; most of what is shown here was counted in
 * other processes, and is only put into words.)
 * @see Prometheus, "Exposition formats", text format 0.0.4
 */
export class MetricsText {
  #text = '';

  /** One metric: its samples, each with its labels. */
  metric(name: string, kind: Exclude<Kind, 'histogram'>, help: string, samples: [Labels, number][]): void {
    this.#head(name, kind, help);
    for (const [labels, value] of samples) this.#text += `${name}${braced(pairsOf(labels))} ${value}\n`;
  }

  /** @param counts how many were within each bound, and beyond the last; not added up */
  histogram(
    name: string,
    help: string,
    bounds: readonly number[],
    samples: [Labels, { counts: readonly number[]; sum: number }][],
  ): void {
    this.#head(name, 'histogram', help);
    const ends = [...bounds.map(String), '+Inf'].map((le) => `le="${le}"} `);
    for (const [labels, { counts, sum }] of samples) {
      // Written once: a volume has some twenty lines here.
      const own = pairsOf(labels);
      const bucket = `${name}_bucket{${own === '' ? '' : `${own},`}`;
      let total = 0;
      for (const [index, count] of counts.entries()) {
        total += count;
        this.#text += `${bucket}${ends[index]}${total}\n`;
      }
      this.#text += `${name}_sum${braced(own)} ${sum}\n${name}_count${braced(own)} ${total}\n`;
    }
  }

  toString(): string {
    return this.#text;
  }

  #head(name: string, kind: Kind, help: string): void {
    this.#text += `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`;
  }
}

function pairsOf(labels: Labels): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${escaped(value)}"`)
    .join(',');
}

function braced(pairs: string): string {
  return pairs === '' ? '' : `{${pairs}}`;
}

function escaped(value: string): string {
  if (!/[\\"\n]/.test(value)) return value;
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
