// The five views: the network, a block that repeats, a layer, a unit, paths between two units.
// Each says what the panel and the picture show, and where the reader is.

function notes() {
  const { about } = app.graph;
  const found = [];
  if (about.lacking) {
    found.push(el('p', { class: 'note strong' }, 'Edges of this graph stay in the model file, and it was not given: no strongest edges. Make the page with ', el('code', {}, about.lacking)));
  } else {
    found.push(el('p', { class: 'note' }, `Of ${number(about.edges)} edges, ${number(about.kept)} are on this page: the ${about.k} strongest into and out of every unit (by |w|; the l1 norm of kernels; 1 without a weight). Columns of units have five digits. The SQL has everything.`));
  }
  if (about.left_out.length) {
    found.push(el('p', { class: 'note' }, `Too many columns: ${about.left_out.join(', ')} ${about.left_out.length > 1 ? 'are' : 'is'} not on this page.`));
  }
  return found;
}

function networkView(state) {
  const { graph } = app;
  const { first, nav } = pager(state, graph.layers.length);
  const overlay = app.overlay;
  const rows = graph.layers.slice(first, first + ROWS).map((layer, k) => {
    const mark = overlay.layer(first + k);
    return {
      marked: mark !== null,
      cells: [layerLink(state, first + k), layer.kind, layer.n, layer.params, ...(overlay.group ? [mark === null ? '' : mark.text] : [])],
    };
  });
  const numeric = (text) => ({ text, numeric: true });
  return {
    title: 'Network',
    panel: [
      el('h2', {}, 'Network'),
      facts([['layers', number(graph.layers.length)], ['units', number(graph.n)], ['edges', number(graph.about.edges)], ['store', graph.about.store]]),
      notes(),
      graph.findings.length ? [el('h3', {}, `Findings of the audit (${graph.findings.length})`), findingList(state, graph.findings.map((_, i) => i).slice(0, 12)), graph.findings.length > 12 ? el('p', { class: 'lead' }, 'The others are at their layers, and in the SQL.') : null, sqlBox('findings', graph.about.sql.findings)] : null,
      graph.circuits.length ? [el('h3', {}, 'Circuits'), circuitTable(state)] : null,
      graph.folds.length ? [el('h3', {}, 'Blocks that repeat'), foldList(state)] : null,
      el('h3', {}, 'Layers'),
      table(counted(graph.layers.length, 'layer'), ['layer', 'kind', numeric('units'), numeric('parameters'), ...(overlay.group ? ['overlay'] : [])], rows),
      nav,
      sqlBox('layers', graph.about.sql.layers),
      sqlBox('edges between layers', graph.about.sql.blocks),
    ],
    picture: mapPicture(state, null),
    crumbs: [],
  };
}

function circuitTable(state) {
  const rows = app.graph.circuits.map((circuit) => ({
    cells: [
      link(`run ${circuit.run}`, { ...state, by: `circuit-${circuit.run}` }, state), circuit.target, circuit.units.size, circuit.edges.size, circuit.kept,
      el('span', {}, [...circuit.units].slice(0, 6).map((unit, k) => [k ? ', ' : '', unitLink({ ...state, by: `circuit-${circuit.run}` }, unit)]), circuit.units.size > 6 ? ' …' : ''),
    ],
  }));
  const numeric = (text) => ({ text, numeric: true });
  return table('The fewest units that keep a share of a behaviour', ['circuit', 'target', numeric('units'), numeric('edges'), numeric('kept'), 'first units'], rows);
}

function foldList(state) {
  return el('ul', {}, app.graph.folds.map((fold, i) =>
    el('li', {}, `${fold.times} × ${counted(fold.size, 'layer')}: `,
      Array.from({ length: fold.times }, (_, copy) => [copy ? ' ' : '', link(`${copy + 1}`, toBlock(state, i, copy), state, { 'aria-label': `block ${copy + 1} of ${fold.times}`, 'data-key': `block ${i}.${copy}` })]))));
}

function blockView(state) {
  const { graph } = app;
  const fold = graph.folds[state.fold];
  const first = fold.start + state.copy * fold.size;
  const members = Array.from({ length: fold.size }, (_, i) => first + i);
  const overlay = app.overlay;
  const rows = members.map((i) => {
    const mark = overlay.layer(i);
    return { marked: mark !== null, cells: [layerLink(state, i), graph.layers[i].kind, graph.layers[i].n, graph.layers[i].params, ...(overlay.group ? [mark === null ? '' : mark.text] : [])] };
  });
  const step = (text, copy) => (copy >= 0 && copy < fold.times ? link(text, toBlock(state, state.fold, copy), state) : null);
  const ids = members.map((i) => graph.layers[i].id);
  const inside = `graph = ${graph.about.graph} AND layer IN (${ids.join(', ')})`;
  return {
    title: `Block ${state.copy + 1} of ${fold.times}`,
    panel: [
      el('h2', {}, `Block ${state.copy + 1} of ${fold.times}`),
      el('p', { class: 'lead' }, `${counted(fold.size, 'layer')}; the map of the network shows the first of these blocks for all of them. Boxes with dashed borders are layers outside.`),
      el('div', { class: 'actions' }, step('← the block before', state.copy - 1), step('the next block →', state.copy + 1)),
      table(counted(fold.size, 'layer'), ['layer', 'kind', { text: 'units', numeric: true }, { text: 'parameters', numeric: true }, ...(overlay.group ? ['overlay'] : [])], rows),
      sqlBox('edges into these layers, by block of edges', `SELECT id, name, kind, src_layers, layer, tensor, n_edges\nFROM blocks WHERE ${inside} ORDER BY id`),
    ],
    picture: blockPicture(state, state.fold, state.copy, null),
    crumbs: [`block ${state.copy + 1} of ${fold.times}`],
  };
}

function blockCrumb(state, layer) {
  const where = app.graph.copyOf(layer);
  if (where === null) return [];
  return [link(`block ${where.copy + 1} of ${app.graph.folds[where.fold].times}`, toBlock(state, where.fold, where.copy), state)];
}

/** Blocks of edges into a layer, or out of it. */
function blockTable(state, layer, side) {
  const { graph } = app;
  const found = graph.blocks.filter((block) => (side === 'in' ? block.layer === layer : block.from.includes(layer)));
  const rows = found.slice(0, 30).map((block) => ({
    cells: [side === 'in' ? el('span', {}, block.from.slice(0, 4).map((source, k) => [k ? ', ' : '', layerLink(state, source)]), block.from.length > 4 ? ` and ${block.from.length - 4} more` : '') : layerLink(state, block.layer), block.kind, block.n, block.tensor ?? '–'],
  }));
  if (!rows.length) return el('p', { class: 'lead' }, side === 'in' ? 'Nothing leads into it.' : 'It leads to nothing.');
  return table(`${counted(found.length, 'block')} of edges ${side === 'in' ? 'into it' : 'out of it'}${found.length > 30 ? ', the first 30' : ''}`, [side === 'in' ? 'from' : 'to', 'kind', { text: 'edges', numeric: true }, 'tensor'], rows);
}

function layerView(state) {
  const { graph } = app;
  const layer = graph.layers[state.layer];
  const about = graph.findings.map((_, i) => i).filter((i) => graph.findings[i].layers.includes(state.layer));
  const where = graph.copyOf(state.layer);
  return {
    title: layer.name,
    panel: [
      el('h2', {}, layer.name),
      facts([['operation', layer.op], ['kind', layer.kind], ['units', number(layer.n)], ['parameters', number(layer.params)], ['zeros', number(layer.zeros)], ['depth', number(layer.depth)], ['id', number(layer.id)]]),
      about.length ? [el('h3', {}, 'Findings here'), findingList(state, about)] : null,
      el('h3', {}, 'Units'),
      unitTable(state, state.layer),
      sqlBox('these units', unitsSql(state, state.layer, pager(state, layer.n).first)),
      el('h3', {}, 'Edges'),
      blockTable(state, state.layer, 'in'),
      blockTable(state, state.layer, 'out'),
    ],
    picture: where === null ? mapPicture(state, state.layer) : blockPicture(state, where.fold, where.copy, state.layer),
    crumbs: [...blockCrumb(state, state.layer), layer.name],
  };
}

function edgeTable(state, unit, side) {
  const { graph } = app;
  const edges = graph.strongest(unit, side);
  const column = graph.columns.findIndex((one) => one.name === (side === 'in' ? 'edges.edges in' : 'edges.edges out'));
  const total = column < 0 ? null : graph.columns[column].values[unit];
  const activity = graph.columns.find((one) => one.name === 'activity.mean');
  const influence = graph.columns.find((one) => one.name === 'unit_influence.effect');
  const extra = [activity && ['its activity', activity], influence && ['its influence', influence]].filter(Boolean);
  const words = side === 'in' ? 'into it' : 'out of it';
  if (!edges.length) return el('p', { class: 'lead' }, graph.hasEdges ? `No edge leads ${words}.` : 'The strongest edges need the model file: see the network.');
  const more = total !== null && total > edges.length;
  const caption = more ? `The ${edges.length} strongest of ${number(total)} edges ${words}` : `${counted(edges.length, 'edge')} ${words}`;
  const rows = edges.map((edge) => {
    const other = side === 'in' ? graph.src[edge] : graph.dst[edge];
    const [source, target] = side === 'in' ? [other, unit] : [unit, other];
    const mark = app.overlay.edge(source, target) || (app.overlay.unit(other) !== null && !app.overlay.unit(other).plain);
    return {
      marked: mark,
      cells: [unitLink(state, other, { onTrail: true }), weightCell(edge), graph.strength(edge), graph.kind(edge), ...extra.map(([, one]) => (Number.isNaN(one.values[other]) ? '–' : one.values[other]))],
    };
  });
  const numeric = (text) => ({ text, numeric: true });
  return table(caption, [side === 'in' ? 'from' : 'to', numeric('weight'), numeric('strength'), 'kind', ...extra.map(([text]) => numeric(text))], rows);
}

function unitView(state) {
  const { graph } = app;
  const { unit } = state;
  const layer = graph.layerOf(unit);
  const name = graph.unitName(unit);
  const findings = graph.findingsOf.get(unit) ?? [];
  const inside = graph.circuits.filter((circuit) => circuit.units.has(unit));
  const pick = (text, changes) => link(text, { ...state, ...changes }, state, { 'data-key': text });
  const values = graph.columns.filter((column) => !Number.isNaN(column.values[unit]));
  return {
    title: name,
    panel: [
      el('h2', {}, name),
      facts([['role', graph.about.roles[graph.role[unit]]], ['kind', graph.layers[layer].kind], ['unit', number(unit)], ['activation', graph.about.activations[graph.activation[unit]]]]),
      findings.length ? [el('h3', {}, 'Findings about it'), findingList(state, findings)] : null,
      inside.length ? el('p', { class: 'note' }, 'In ', inside.map((circuit, k) => [k ? ', ' : '', link(`the circuit of run ${circuit.run} for ${circuit.target}`, { ...state, by: `circuit-${circuit.run}` }, state)])) : null,
      el('div', { class: 'actions' }, pick('Paths from here', { from: unit }), pick('Paths to here', { to: unit })),
      el('h3', {}, 'Strongest edges in'),
      edgeTable(state, unit, 'in'),
      sqlBox('edges in', edgesSql(unit, 'in')),
      el('h3', {}, 'Strongest edges out'),
      edgeTable(state, unit, 'out'),
      sqlBox('edges out', edgesSql(unit, 'out')),
      el('h3', {}, 'All that is known about it'),
      values.length ? table('Numbers', ['from', 'what', { text: 'value', numeric: true }], values.map((column) => ({ cells: [column.about_source ?? column.from, el('span', { title: column.about }, column.title), column.values[unit]] }))) : el('p', { class: 'lead' }, 'Nothing was measured.'),
      sqlBox('this unit', graph.about.sql.units.replace('{layer}', () => ` AND u.id = ${unit}`).replace('{order}', () => 'u.id')),
    ],
    picture: unitPicture(state, unit),
    crumbs: [...blockCrumb(state, layer), layerLink(state, layer), `[${graph.position(unit)}]`],
  };
}

function pathTable(state, caption, path) {
  const { graph } = app;
  const rows = path.units.map((unit, i) => ({
    marked: app.overlay.unit(unit) !== null && !app.overlay.unit(unit).plain,
    cells: [i, unitLink(state, unit), ...(i ? [weightCell(path.edges[i - 1]), graph.kind(path.edges[i - 1])] : ['', ''])],
  }));
  return table(caption, [{ text: 'step', numeric: true }, 'unit', { text: 'weight of the edge into it', numeric: true }, 'kind'], rows);
}

function pathsView(state) {
  const { graph } = app;
  const { from, to } = state;
  const { strongest, shortest } = pathsBetween(graph, from, to);
  const all = `emergraph paths ${graph.about.store} --graph ${graph.about.graph} --from "unit = ${from}" --to "unit = ${to}"`;
  const pairs = strongest.flatMap((path) => path.edges.map((edge) => `(${graph.src[edge]}, ${graph.dst[edge]})`));
  const listed = [...new Set(pairs)];
  return {
    title: `Paths from ${graph.unitName(from)} to ${graph.unitName(to)}`,
    panel: [
      el('h2', {}, 'Paths'),
      el('p', {}, 'From ', unitLink(state, from), ' to ', unitLink(state, to), '. ', link('Turn round', { ...state, from: to, to: from }, state)),
      el('p', { class: 'note strong' }, `Only along the edges that are on this page, the ${graph.about.k} strongest of every unit, and none that may lead back (recurrent, norm). All edges: `, el('code', {}, all)),
      strongest.length ? null : el('p', {}, 'No path among the edges kept.'),
      shortest ? pathTable(state, `The shortest: ${counted(shortest.edges.length, 'edge')}`, shortest) : null,
      strongest.map((path, i) => [el('h3', {}, `Strongest ${i + 1}`), pathTable(state, `Product of the strengths: ${number(path.strength)}`, path)]),
      listed.length ? sqlBox('these edges', `SELECT block, kind, src, dst, weight, l1\nFROM edges WHERE graph = ${graph.about.graph} AND (src, dst) IN (${listed.join(', ')})\nORDER BY src, dst`) : null,
    ],
    picture: pathPicture(state, strongest, shortest, from, to),
    crumbs: ['paths'],
  };
}
