// The levers' keys, and the charts: evidence against its line and rates against their limit, over time.
"use strict";

const lever = id => () => { const dialog = document.getElementById(id); if (dialog) open(dialog); };
keys({ p: lever("promote"), r: lever("rollback"), x: lever("exposure"), h: lever("hold") });

// Canvas knows no custom properties: a probe says what they come to under the present theme.
const probe = document.body.appendChild(Object.assign(document.createElement("span"), { hidden: true }));
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
const faint = (name, share) => `color-mix(in srgb, ${colour(name)} ${share}%, transparent)`;
const seconds = at => Date.parse(at) / 1000;

function marks(times) {
  return plot => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = colour("soft");
    ctx.setLineDash([4, 4]);
    for (const at of times) {
      const x = plot.valToPos(at, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };
}

// Times as the tables write them: UTC, 24 hours, and dates where a chart is longer than two days.
const clock = span => (_, ticks) => ticks.map(at => new Date(at * 1000).toISOString().slice(...(span[1] - span[0] > 172800 ? [5, 10] : [11, 16])));
const decades = (_, __, least, most) => Array.from({ length: 12 }, (_, n) => 10 ** (n - 1)).filter(at => at >= least && at <= most);

function chart(place, { data, series, bands, range, distr, splits, values, span, times }) {
  const axis = { stroke: () => colour("soft"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return new uPlot({
    width: place.clientWidth, height: 110, legend: { show: false }, cursor: { show: false }, padding: [6, 16, 0, 0],
    scales: { x: { range: () => span }, y: { distr, log: 10, range } },
    axes: [{ ...axis, size: 22, space: 60, values: clock(span) }, { ...axis, size: 52, space: 22, splits, filter: (_, ticks) => ticks, values: (_, ticks) => ticks.map(values) }],
    series: [{}, ...series], bands, hooks: { draw: [marks(times)] },
  }, data, place);
}

function evidenceChart(place, trail, threshold, span, times) {
  const at = trail.map(point => seconds(point.at)), e = trail.map(point => Math.max(point.e_value ?? 1, 0.1));
  return chart(place, {
    data: [at, e, at.map(() => threshold)],
    series: [{ stroke: () => colour("accent"), width: 2, points: { show: false } }, { stroke: () => colour("bad"), dash: [6, 4], width: 1.5, points: { show: false } }],
    range: [Math.min(1, ...e), Math.max(threshold * 2, ...e)], distr: 3, splits: decades, values: value => (value >= 1000 ? `1e${Math.log10(value)}` : `${value}`), span, times,
  });
}

function rateChart(place, course, span, times) {
  const of = name => course.map(point => point[name]);
  return chart(place, {
    data: [course.map(point => seconds(point.at)), of("upper"), of("lower"), of("rate"), of("limit")],
    series: [
      ...[0, 1].map(() => ({ stroke: "transparent", points: { show: false } })),
      { stroke: () => colour("accent"), width: 2, points: { size: 4 } },
      { stroke: () => colour("bad"), dash: [6, 4], width: 1.5, points: { show: false } },
    ],
    bands: [{ series: [1, 2], fill: () => faint("accent", 22) }],
    range: (_, __, most) => [0, Math.max(most, 0.01) * 1.05], distr: 1, values: value => `${+(value * 100).toPrecision(3)} %`, span, times,
  });
}

function draw(place) {
  const { trail, threshold, course } = JSON.parse(place.dataset.series);
  const ends = [...(trail.length > 1 ? trail : []), ...course].map(point => seconds(point.at));
  const span = [Math.min(...ends), Math.max(Math.min(...ends) + 60, ...ends)];
  const times = JSON.parse(document.getElementById("rollout").dataset.marks).map(seconds);
  place.plots?.forEach(plot => plot.destroy());
  place.plots = [];
  if (threshold && trail.length > 1) place.plots.push(evidenceChart(place, trail, threshold, span, times));
  if (course.length > 1) place.plots.push(rateChart(place, course, span, times));
  place.drawn = place.dataset.series;
}

const seen = new ResizeObserver(entries => {
  for (const { target } of entries)
    if (target.plots?.[0]?.width !== target.clientWidth) draw(target);
});
// A plot keeps what it drew when its page is morphed, and draws again where its numbers are others.
function drawNew() {
  for (const place of $$(".plot")) {
    if (place.drawn !== place.dataset.series) draw(place);
    seen.observe(place);
  }
}
drawNew();
document.addEventListener("htmx:after:swap", drawNew);
for (const [on, what] of [[document, "theme"], [matchMedia("(prefers-color-scheme: dark)"), "change"]])
  on.addEventListener(what, () => $$(".plot").forEach(draw));
