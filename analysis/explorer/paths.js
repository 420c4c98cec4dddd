// Paths between two units among the edges that were kept, along edges that never lead back.

/** Paths that are shown. */
const MOST_PATHS = 5;

/** The strongest paths from one unit to another, by the product of strengths, and the shortest one. */
function pathsBetween(graph, from, to) {
  const layers = orderedLayers(graph, from, to);
  const alive = unitsBetween(graph, layers, from, to);
  if (!alive[to] || from === to) return { strongest: [], shortest: null };
  const strongest = bestPaths(graph, layers, alive, from, to, MOST_PATHS, (edge) => Math.log(graph.strength(edge)));
  const [shortest] = bestPaths(graph, layers, alive, from, to, 1, () => -1);
  return { strongest, shortest };
}

/** Layers between those of two units; ids of layers are a topological order. */
function orderedLayers(graph, from, to) {
  const [first, last] = [graph.layerOf(from), graph.layerOf(to)];
  return graph.layers.map((_, i) => i).filter((i) => i >= first && i <= last);
}

function forward(graph, edge) {
  return !CYCLIC.has(graph.kind(edge));
}

/** Which units are on a path: 1 for those. */
function unitsBetween(graph, layers, from, to) {
  const reached = new Uint8Array(graph.n);
  reached[from] = 1;
  for (const i of layers) {
    const { first, n } = graph.layers[i];
    for (let unit = first; unit < first + n; unit++) {
      if (!reached[unit]) continue;
      for (let edge = graph.outStart[unit]; edge < graph.outStart[unit + 1]; edge++) {
        if (forward(graph, edge)) reached[graph.dst[edge]] = 1;
      }
    }
  }
  const alive = new Uint8Array(graph.n);
  alive[to] = reached[to];
  for (const i of [...layers].reverse()) {
    const { first, n } = graph.layers[i];
    for (let unit = first; unit < first + n; unit++) {
      if (!alive[unit]) continue;
      for (let at = graph.inStart[unit]; at < graph.inStart[unit + 1]; at++) {
        const edge = graph.incoming[at];
        if (forward(graph, edge) && reached[graph.src[edge]]) alive[graph.src[edge]] = 1;
      }
    }
  }
  return alive;
}

/** The k paths with the largest sums of gains, the best first. */
function bestPaths(graph, layers, alive, from, to, k, gain) {
  const best = new Map([[from, [{ score: 0, edge: -1, before: null }]]]);
  for (const i of layers) {
    const { first, n } = graph.layers[i];
    for (let unit = first; unit < first + n; unit++) {
      const own = alive[unit] ? best.get(unit) : undefined;
      if (own === undefined || unit === to) continue;
      for (let edge = graph.outStart[unit]; edge < graph.outStart[unit + 1]; edge++) {
        const next = graph.dst[edge];
        if (!alive[next] || !forward(graph, edge)) continue;
        const more = gain(edge);
        if (!best.has(next)) best.set(next, []);
        const there = best.get(next);
        for (const step of own) {
          const score = step.score + more;
          if (there.length === k && score <= there[k - 1].score) break;
          let at = there.length;
          while (at > 0 && there[at - 1].score < score) at--;
          there.splice(at, 0, { score, edge, before: step });
          if (there.length > k) there.pop();
        }
      }
    }
  }
  return (best.get(to) ?? []).map((end) => {
    const edges = [];
    for (let step = end; step.before !== null; step = step.before) edges.unshift(step.edge);
    const strength = edges.reduce((product, edge) => product * graph.strength(edge), 1);
    return { edges, strength, units: [from, ...edges.map((edge) => graph.dst[edge])] };
  });
}
