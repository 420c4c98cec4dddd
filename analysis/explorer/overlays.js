// Overlays: what colours layers and marks units.

/** All overlays of a graph, by the word that stands for each in an address. */
function overlaysOf(graph) {
  const found = new Map([['', none()]]);
  if (graph.findings.length) {
    found.set('findings', ofFindings(graph, 'Findings of the audit', graph.findings));
    graph.findings.forEach((finding, i) => {
      if (finding.layers.length) found.set(`finding-${i}`, ofFindings(graph, `Finding ${i + 1}: ${finding.sentence}`, [finding]));
    });
  }
  graph.circuits.forEach((circuit) => {
    const title = `Circuit of run ${circuit.run} for ${circuit.target}`;
    found.set(`circuit-${circuit.run}`, ofUnits(graph, title, circuit.units, circuit.edges));
  });
  graph.columns.forEach((column) => found.set(`column-${column.name}`, ofColumn(graph, column)));
  return found;
}

function none() {
  return { title: 'nothing', group: '', layer: () => null, unit: () => null, edge: () => false };
}

/** Units that are in a set: layers by how many of them they have. */
function ofUnits(graph, title, units, edges = new Set()) {
  const counts = new Map();
  for (const unit of units) {
    const layer = graph.layerOf(unit);
    counts.set(layer, (counts.get(layer) ?? 0) + 1);
  }
  return {
    title,
    group: 'Circuits',
    layer: (i) => {
      const n = counts.get(i) ?? 0;
      return n ? { share: Math.max(0.15, n / graph.layers[i].n), text: `${number(n)} of ${number(graph.layers[i].n)}` } : null;
    },
    unit: (unit) => (units.has(unit) ? { share: 1, text: 'in it' } : null),
    edge: (source, target) => edges.has(`${source}>${target}`),
  };
}

function ofFindings(graph, title, findings) {
  if (findings.length === 1 && findings[0].units.size) return { ...ofUnits(graph, title, findings[0].units), group: 'Findings' };
  const counts = new Map();
  for (const finding of findings) {
    for (const layer of new Set(finding.layers)) counts.set(layer, (counts.get(layer) ?? 0) + 1);
  }
  const most = Math.max(1, ...counts.values());
  return {
    title,
    group: 'Findings',
    layer: (i) => (counts.has(i) ? { share: counts.get(i) / most, text: counted(counts.get(i), 'finding') } : null),
    unit: (unit) => {
      const n = findings.filter((finding) => finding.units.has(unit)).length;
      return n ? { share: 1, text: counted(n, 'finding') } : null;
    },
    edge: () => false,
  };
}

/** A column of numbers: layers by the mean of their units, units by their own, both against the largest. */
function ofColumn(graph, column) {
  let layers = null;
  let most = 0;
  const means = () => {
    if (layers !== null) return layers;
    layers = graph.layers.map((layer) => {
      let sum = 0;
      let n = 0;
      for (let unit = layer.first; unit < layer.first + layer.n; unit++) {
        const value = column.values[unit];
        if (Number.isFinite(value)) {
          sum += value;
          n += 1;
        }
      }
      return n ? sum / n : null;
    });
    most = Math.max(...layers.map((mean) => Math.abs(mean ?? 0)), 1e-30);
    return layers;
  };
  return {
    title: `${column.name} (mean of the units)`,
    group: 'Numbers',
    layer: (i) => {
      const mean = means()[i];
      return mean === null ? null : { share: Math.abs(mean) / most, text: number(mean) };
    },
    unit: (unit) => {
      const value = column.values[unit];
      means();
      return Number.isNaN(value) ? null : { share: Math.min(1, Math.abs(value) / most), text: number(value), plain: true };
    },
    edge: () => false,
  };
}
