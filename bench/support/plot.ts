import { mkdirSync, writeFileSync } from 'node:fs';

export type Series = { name: string; points: readonly (readonly [number, number])[] };
export type Plot = { title: string; x: string; y: string; series: readonly Series[] };

const WIDTH = 640;
const HEIGHT = 360;
const LEFT = 70;
const BOTTOM = 50;
const TOP = 40;
const RIGHT = 150;
const COLOURS = ['#1f6fb2', '#c8552b', '#3b8f4e', '#7a4ea3'];

/** Draws lines over two logarithmic axes, and writes docs/plots/NAME.svg. */
export function plot(name: string, { title, x, y, series }: Plot): void {
  const xs = series.flatMap(({ points }) => points.map(([at]) => at));
  const ys = series.flatMap(({ points }) => points.map(([, value]) => value));
  const [across, up] = [axis(xs, LEFT, WIDTH - RIGHT), axis(ys, HEIGHT - BOTTOM, TOP)];
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<text x="${LEFT}" y="20" font-size="14">${title}</text>`,
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 10}" text-anchor="middle">${x}</text>`,
    `<text transform="translate(16 ${(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)" text-anchor="middle">${y}</text>`,
  ];
  for (const tick of across.ticks) {
    const at = across.place(tick);
    parts.push(`<line x1="${at}" y1="${TOP}" x2="${at}" y2="${HEIGHT - BOTTOM}" stroke="#ddd"/>`);
    parts.push(`<text x="${at}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${tick}</text>`);
  }
  for (const tick of up.ticks) {
    const at = up.place(tick);
    parts.push(`<line x1="${LEFT}" y1="${at}" x2="${WIDTH - RIGHT}" y2="${at}" stroke="#ddd"/>`);
    parts.push(`<text x="${LEFT - 6}" y="${at + 4}" text-anchor="end">${tick}</text>`);
  }
  for (const [index, { name: label, points }] of series.entries()) {
    const colour = COLOURS[index % COLOURS.length];
    const line = points.map(([at, value]) => `${across.place(at)},${up.place(value)}`);
    parts.push(`<polyline points="${line.join(' ')}" fill="none" stroke="${colour}" stroke-width="2"/>`);
    for (const place of line)
      parts.push(`<circle cx="${place.split(',')[0]}" cy="${place.split(',')[1]}" r="3" fill="${colour}"/>`);
    parts.push(`<text x="${WIDTH - RIGHT + 10}" y="${TOP + 12 + index * 18}" fill="${colour}">${label}</text>`);
  }
  parts.push('</svg>');
  const directory = new URL('../../docs/plots/', import.meta.url);
  mkdirSync(directory, { recursive: true });
  writeFileSync(new URL(`${name}.svg`, directory), `${parts.join('\n')}\n`);
}

/** A logarithmic axis over whole powers of ten. */
function axis(values: readonly number[], from: number, to: number): { ticks: number[]; place: (at: number) => number } {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => Number((10 ** (low + index)).toPrecision(1)));
  const place = (at: number): number =>
    Math.round((from + ((Math.log10(at) - low) / (high - low)) * (to - from)) * 10) / 10;
  return { ticks, place };
}
