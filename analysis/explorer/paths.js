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
  return graph.ahead[graph.block[edge]] === 1;
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

/** The k paths with the largest sums of gains, the best first; each unit has k slots for the best ways to it. */
function bestPaths(graph, layers, alive, from, to, k, gain) {
  const filled = new Uint8Array(graph.n);
  const score = new Float64Array(graph.n * k);
  const edgeOf = new Int32Array(graph.n * k);
  const slotOf = new Uint8Array(graph.n * k);
  filled[from] = 1;
  edgeOf[from * k] = -1;
  const offer = (unit, sum, edge, slot) => {
    const base = unit * k;
    let at = filled[unit];
    if (at === k && sum <= score[base + k - 1]) return false;
    if (at === k) at--;
    else filled[unit]++;
    for (; at > 0 && score[base + at - 1] < sum; at--) {
      score[base + at] = score[base + at - 1];
      edgeOf[base + at] = edgeOf[base + at - 1];
      slotOf[base + at] = slotOf[base + at - 1];
    }
    score[base + at] = sum;
    edgeOf[base + at] = edge;
    slotOf[base + at] = slot;
    return true;
  };
  for (const i of layers) {
    const { first, n } = graph.layers[i];
    for (let unit = first; unit < first + n; unit++) {
      if (!alive[unit] || unit === to) continue;
      for (let edge = graph.outStart[unit]; edge < graph.outStart[unit + 1]; edge++) {
        const next = graph.dst[edge];
        if (!alive[next] || !forward(graph, edge)) continue;
        const more = gain(edge);
        for (let slot = 0; slot < filled[unit]; slot++) {
          if (!offer(next, score[unit * k + slot] + more, edge, slot)) break;
        }
      }
    }
  }
  return Array.from({ length: filled[to] }, (_, rank) => {
    const edges = [];
    let slot = rank;
    for (let unit = to; edgeOf[unit * k + slot] >= 0; ) {
      const edge = edgeOf[unit * k + slot];
      slot = slotOf[unit * k + slot];
      edges.unshift(edge);
      unit = graph.src[edge];
    }
    const strength = edges.reduce((product, edge) => product * graph.strength(edge), 1);
    return { edges, strength, units: [from, ...edges.map((edge) => graph.dst[edge])] };
  });
}
