// What each view draws, as boxes and lines.

function layerBox(state, i, { outside = false, current = false, position, href } = {}) {
  const { graph } = app;
  const layer = graph.layers[i];
  const mark = app.overlay.layer(i);
  const node = {
    id: `L${i}`, ...BOX, href: href ?? address(toLayer(state, i), graph),
    label: `${layer.short}\n${layer.kind} · ${number(layer.n)}${mark ? ` · ${mark.text}` : ''}`,
    position, classes: [NEURONS.has(layer.kind) ? 'neurons' : 'structural', outside ? 'outside' : '', current ? 'current' : ''].filter(Boolean),
  };
  if (mark && !outside) node.share = 0.12 + 0.4 * mark.share; // what is outside has pale letters
  return node;
}

/** Lines between layers: one for each pair and kind, as wide as the logarithm of its edges. */
function layerLines(pairs, places) {
  const sums = new Map();
  for (const { source, target, kind, n } of pairs) {
    const key = `${source} ${target} ${kind}`;
    if (!sums.has(key)) sums.set(key, { source, target, kind, n: 0 });
    sums.get(key).n += n;
  }
  return [...sums].map(([key, { source, target, kind, n }]) => {
    const [a, b] = [places.get(source), places.get(target)];
    const rows = (b.y - a.y) / (BOX.height + 34);
    const way = source === target ? 'loop' : rows < 0.5 ? 'back' : rows > 1.5 ? 'ahead' : 'next';
    const bend = (way === 'back' ? 1 : -1) * (30 + 16 * Math.min(12, Math.abs(rows)));
    return { id: key, source: `L${source}`, target: `L${target}`, width: 1 + 0.9 * Math.log10(Math.max(1, n)), bend, classes: [kind, way] };
  });
}

/** The map of the network, in which repeats are drawn once, as the report draws it. */
function mapPicture(state, current) {
  const { graph } = app;
  const shown = graph.layers.map((_, i) => i).filter((i) => graph.layers[i].x !== undefined);
  const places = new Map(shown.map((i) => [i, { x: graph.layers[i].x, y: graph.layers[i].y }]));
  const frames = graph.folds.map((fold, i) => frameBox(state, fold, i, places));
  const pairs = [];
  for (const block of graph.blocks) {
    const copy = graph.copyOf(block.layer);
    if (copy !== null && copy.copy > 0) continue;
    for (const source of block.from) {
      const before = graph.copyOf(source);
      if (before !== null && before.copy > 0 && copy !== null && copy.fold === before.fold) continue;
      pairs.push({ source: graph.standsFor(source), target: block.layer, kind: block.kind, n: block.n });
    }
  }
  const boxes = shown.map((i) => layerBox(state, i, { position: places.get(i), current: i === current }));
  return {
    nodes: [...frames, ...boxes], edges: layerLines(pairs, places), focus: current === null ? null : `L${current}`,
    label: `Map of ${counted(graph.layers.length, 'layer')}`, kinds: [...new Set(pairs.map((pair) => pair.kind))],
  };
}

function frameBox(state, fold, i, places) {
  const inside = Array.from({ length: fold.size }, (_, k) => places.get(fold.start + k));
  const [left, right] = [Math.min(...inside.map((p) => p.x)), Math.max(...inside.map((p) => p.x))];
  const [top, bottom] = [Math.min(...inside.map((p) => p.y)), Math.max(...inside.map((p) => p.y))];
  return {
    id: `F${i}`, label: `× ${fold.times}`, href: address(toBlock(state, i, 0), app.graph), classes: ['frame'],
    width: right - left + BOX.width + 28, height: bottom - top + BOX.height + 28, position: { x: (left + right) / 2, y: (top + bottom) / 2 },
  };
}

/** One copy of a block that repeats, with the layers outside that it reads and feeds. */
function blockPicture(state, fold, copy, current) {
  const { graph } = app;
  const { start, size } = graph.folds[fold];
  const first = start + copy * size;
  const inside = (i) => i >= first && i < first + size;
  const pairs = [];
  for (const block of graph.blocks) {
    for (const source of block.from) {
      if (inside(block.layer) || inside(source)) pairs.push({ source, target: block.layer, kind: block.kind, n: block.n });
    }
  }
  const shown = new Set(pairs.flatMap((pair) => [pair.source, pair.target]));
  for (let i = first; i < first + size; i++) shown.add(i);
  const lines = pairs.map(({ source, target }) => ({ source, target }));
  const places = inRows([...shown].map((i) => ({ id: i, row: graph.layers[i].depth })), lines, { across: BOX.width + 26, down: BOX.height + 34 });
  const boxes = [...shown].map((i) => layerBox(state, i, { outside: !inside(i), current: i === current, position: places.get(i) }));
  return {
    nodes: boxes, edges: layerLines(pairs, places), focus: current === null ? null : `L${current}`,
    label: `Block ${copy + 1} of ${graph.folds[fold].times}`, kinds: [...new Set(pairs.map((pair) => pair.kind))],
  };
}

function unitBox(state, unit, { id = `U${unit}`, onTrail = false, current = false, position, compact = false } = {}) {
  const mark = app.overlay.unit(unit);
  const name = app.graph.shortUnitName(unit);
  const room = compact ? 15 : 26;
  const node = {
    id, width: compact ? 112 : 176, height: 32, position, href: address(toUnit(state, unit, { onTrail }), app.graph),
    label: (name.length > room ? `…${name.slice(1 - room)}` : name) + (mark ? `\n${mark.text}` : ''),
    classes: [mark && !mark.plain ? 'ringed' : '', current ? 'current' : ''].filter(Boolean),
  };
  if (mark) node.share = 0.12 + 0.4 * mark.share;
  return node;
}

function edgeLine(edge, source, target, most, { label = null, across = false } = {}) {
  const { graph } = app;
  const weight = graph.weight[edge];
  const strength = graph.strength(edge);
  const sign = Number.isNaN(weight) ? graph.kind(edge) : weight < 0 ? 'negative' : 'positive';
  const ringed = app.overlay.edge(graph.src[edge], graph.dst[edge]) ? ['ringed'] : [];
  const line = { id: `${source} ${target} ${edge}`, source, target, width: 1 + 5 * Math.min(1, strength / most || 0), classes: [sign, ...ringed, ...(across ? ['across'] : [])] };
  if (label !== null && !Number.isNaN(weight)) line[label] = number(weight);
  return line;
}

/** A unit between its strongest edges in, on the left, and out, on the right. */
function unitPicture(state, unit) {
  const { graph } = app;
  const { compact } = app.picture;
  const most = compact ? 6 : 12;
  const sides = { in: graph.strongest(unit, 'in').slice(0, most), out: graph.strongest(unit, 'out').slice(0, most) };
  const strongest = Math.max(...[...sides.in, ...sides.out].map((edge) => graph.strength(edge)).filter(Number.isFinite), 1e-30);
  const nodes = [unitBox(state, unit, { current: true, position: { x: 0, y: 0 }, compact })];
  const edges = [];
  for (const [side, found] of Object.entries(sides)) {
    const x = (side === 'in' ? -1 : 1) * (compact ? 150 : 290);
    found.forEach((edge, i) => {
      const other = side === 'in' ? graph.src[edge] : graph.dst[edge];
      const id = `${side}${i}`;
      nodes.push(unitBox(state, other, { id, onTrail: true, position: { x, y: (i - (found.length - 1) / 2) * 44 }, compact }));
      const [source, target] = side === 'in' ? [id, `U${unit}`] : [`U${unit}`, id];
      edges.push(edgeLine(edge, source, target, strongest, { label: compact ? null : side === 'in' ? 'before' : 'behind', across: true }));
    });
  }
  return {
    nodes, edges, focus: `U${unit}`, label: `${graph.unitName(unit)} with its strongest edges`,
    signs: true, note: `At most ${most} of each side are drawn.`,
  };
}

/** The units of some paths by layer, with the edges of these paths. */
function pathPicture(state, strongest, shortest, from, to) {
  const { graph } = app;
  const { compact } = app.picture;
  const edges = [...new Set([...strongest, ...(shortest ? [shortest] : [])].flatMap((path) => path.edges))];
  const units = [...new Set([from, to, ...edges.flatMap((edge) => [graph.src[edge], graph.dst[edge]])])];
  const lines = edges.map((edge) => ({ source: graph.src[edge], target: graph.dst[edge] }));
  const places = inRows(units.map((unit) => ({ id: unit, row: graph.layers[graph.layerOf(unit)].depth })), lines, { across: compact ? 130 : 196, down: 80 });
  const most = Math.max(...edges.map((edge) => graph.strength(edge)).filter(Number.isFinite), 1e-30);
  return {
    nodes: units.map((unit) => unitBox(state, unit, { current: unit === from || unit === to, position: places.get(unit), compact })),
    edges: edges.map((edge) => edgeLine(edge, `U${graph.src[edge]}`, `U${graph.dst[edge]}`, most, { label: 'behind' })),
    label: `Paths from ${graph.unitName(from)} to ${graph.unitName(to)}`, signs: true, note: '',
  };
}
