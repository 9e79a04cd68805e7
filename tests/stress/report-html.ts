import type { FaultRecord, Point, StressRun } from './record.js';
import { textReport } from './report-text.js';

/** The report as one page without any other file: curves over time with the faults drawn on them, as inline SVG. */

const WIDTH = 1100;
const HEIGHT = 200;
const LEFT = 70;
const BOTTOM = 22;
const TOP = 10;
const TICKS = 4;

interface Chart {
  title: string;
  unit: string;
  points: readonly Point[];
  /** The values' axis is logarithmic. */
  logarithmic: boolean;
}

export function htmlReport(run: StressRun): string {
  const charts: Chart[] = [
    { title: 'Throughput of fio', unit: 'MiB/s', points: run.throughput, logarithmic: false },
    { title: 'Mean latency of writes', unit: 'ms', points: run.latency, logarithmic: true },
    { title: 'Longest fsync of the probe', unit: 'ms', points: run.fsync, logarithmic: true },
  ];
  const endMs = Math.max(1, run.seconds * 1000);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Holdfast under stress</title>
<style>
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: ${WIDTH}px; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.4em; } h2 { font-size: 1em; margin: 1.4em 0 .2em; }
svg { display: block; } .axis { fill: #666; font-size: 11px; } .grid { stroke: #ddd; }
.fault { fill: #d9480f; fill-opacity: .16; } .fault:hover { fill-opacity: .4; } .curve { fill: none; stroke: #1864ab; stroke-width: 1.4; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; } .passed { color: #2b8a3e; } .failed { color: #c92a2a; }
</style></head><body>
<h1>Holdfast under stress: <span class="${run.failures.length === 0 ? 'passed' : 'failed'}">${run.failures.length === 0 ? 'passed' : 'failed'}</span></h1>
<p>Bands are faults, from their begin until their end; hover for their names.</p>
${charts
  .filter((chart) => chart.points.length > 0)
  .map(
    (chart) => `<h2>${escapeHtml(chart.title)}, ${chart.unit}</h2>\n${drawChart(chart, run.faults, endMs)}`,
  )
  .join('\n')}
<h2>Figures</h2>
<pre>${escapeHtml(textReport(run))}</pre>
</body></html>
`;
}

function drawChart(chart: Chart, faults: readonly FaultRecord[], endMs: number): string {
  const x = (ms: number): number => LEFT + (ms / endMs) * (WIDTH - LEFT - 10);
  const top = Math.max(1, ...chart.points.map((point) => point.value));
  const scale = (value: number): number =>
    chart.logarithmic ? Math.log10(Math.max(1, value)) / Math.max(1, Math.log10(top)) : value / top;
  const y = (value: number): number => TOP + (1 - scale(value)) * (HEIGHT - TOP - BOTTOM);
  const ticks = Array.from({ length: TICKS + 1 }, (_, n) =>
    chart.logarithmic ? 10 ** ((Math.log10(Math.max(10, top)) * n) / TICKS) : (top * n) / TICKS,
  );
  const bands = faults.map((fault) => {
    const width = Math.max(2, x(fault.undoneMs) - x(fault.beganMs));
    const title = `${fault.name} (${fault.victim}): longest fsync ${Math.round(fault.stallMs)} ms`;
    return `<rect class="fault" x="${round(x(fault.beganMs))}" y="${TOP}" width="${round(width)}" height="${HEIGHT - TOP - BOTTOM}"><title>${escapeHtml(title)}</title></rect>`;
  });
  const grid = ticks.map(
    (value) =>
      `<line class="grid" x1="${LEFT}" x2="${WIDTH - 10}" y1="${round(y(value))}" y2="${round(y(value))}"/><text class="axis" x="${LEFT - 6}" y="${round(y(value) + 4)}" text-anchor="end">${label(value)}</text>`,
  );
  const times = Array.from({ length: 11 }, (_, n) => (endMs * n) / 10).map(
    (ms) =>
      `<text class="axis" x="${round(x(ms))}" y="${HEIGHT - 6}" text-anchor="middle">${Math.round(ms / 1000)} s</text>`,
  );
  return `<svg width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(chart.title)}">${grid.join('')}${bands.join('')}<path class="curve" d="${path(chart.points, x, y)}"/>${times.join('')}</svg>`;
}

/** Points further apart than this are not joined: nothing was measured between them. */
const GAP_MS = 5_000;

function path(points: readonly Point[], x: (ms: number) => number, y: (value: number) => number): string {
  return points
    .map(({ atMs, value }, n) => {
      const before = points[n - 1];
      const move = before === undefined || atMs - before.atMs > GAP_MS;
      return `${move ? 'M' : 'L'}${round(x(atMs))} ${round(y(value))}`;
    })
    .join('');
}

const round = (value: number): string => value.toFixed(1);
const label = (value: number): string => (value >= 10 ? String(Math.round(value)) : value.toFixed(1));

function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
