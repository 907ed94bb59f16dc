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
    for (const [labels, value] of samples) this.#text += `${name}${written(labels)} ${value}\n`;
  }

  /** @param counts how many were within each bound, and beyond the last; not added up */
  histogram(
    name: string,
    help: string,
    bounds: readonly number[],
    samples: [Labels, { counts: readonly number[]; sum: number }][],
  ): void {
    this.#head(name, 'histogram', help);
    for (const [labels, { counts, sum }] of samples) {
      let total = 0;
      for (const [index, count] of counts.entries()) {
        total += count;
        const le = index < bounds.length ? String(bounds[index]) : '+Inf';
        this.#text += `${name}_bucket${written({ ...labels, le })} ${total}\n`;
      }
      this.#text += `${name}_sum${written(labels)} ${sum}\n${name}_count${written(labels)} ${total}\n`;
    }
  }

  toString(): string {
    return this.#text;
  }

  #head(name: string, kind: Kind, help: string): void {
    this.#text += `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`;
  }
}

function written(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
