import { parse, type Spec, View } from 'vega';
import { type BenchRun, ratio, rowsOf, systemsOf } from './report.js';

const ROW_PX = 18;
const WIDTH_PX = 640;

/**
 * An SVG for people: for each workload how many times better Holdfast is than each other system, on a logarithmic scale;
 * bars to the right of 1 are Holdfast's.
 */
export async function ratioChart(run: BenchRun): Promise<string> {
  const [first = '', ...others] = systemsOf(run);
  const values = rowsOf(run).flatMap((row) =>
    others.flatMap((other) => {
      const times = ratio(row, first, other);
      return times === undefined ? [] : [{ workload: row.workload, other, times }];
    }),
  );
  const workloads = new Set(values.map((value) => value.workload)).size;
  const spec: Spec = {
    $schema: 'https://vega.github.io/schema/vega/v6.json',
    width: WIDTH_PX,
    height: Math.max(1, workloads * others.length) * ROW_PX,
    padding: 8,
    background: 'white',
    title: `${first} over the others: times better`,
    data: [{ name: 'ratios', values }],
    scales: [
      {
        name: 'row',
        type: 'band',
        domain: { data: 'ratios', field: 'workload' },
        range: 'height',
        padding: 0.2,
      },
      { name: 'bar', type: 'band', domain: others, range: { signal: `[0, bandwidth('row')]` } },
      {
        name: 'times',
        type: 'log',
        base: 10,
        domain: { fields: [{ data: 'ratios', field: 'times' }, [1]] },
        range: 'width',
        nice: true,
      },
      { name: 'color', type: 'ordinal', domain: others, range: 'category' },
    ],
    axes: [
      { orient: 'left', scale: 'row' },
      { orient: 'bottom', scale: 'times', grid: true, title: 'times better (logarithmic)' },
    ],
    legends: [{ fill: 'color', title: 'compared with' }],
    marks: [
      {
        type: 'group',
        from: { facet: { data: 'ratios', name: 'facet', groupby: 'workload' } },
        encode: { enter: { y: { scale: 'row', field: 'workload' } } },
        marks: [
          {
            type: 'rect',
            from: { data: 'facet' },
            encode: {
              enter: {
                y: { scale: 'bar', field: 'other' },
                height: { scale: 'bar', band: 0.9 },
                x: { scale: 'times', value: 1 },
                x2: { scale: 'times', field: 'times' },
                fill: { scale: 'color', field: 'other' },
              },
            },
          },
        ],
      },
    ],
  };
  return new View(parse(spec), { renderer: 'none' }).toSVG();
}
