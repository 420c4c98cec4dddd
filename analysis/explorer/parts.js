// Parts that several views have: tables, facts, findings, SQL.

const ROWS = 50;

function link(text, target, state, attributes = {}) {
  return el('a', { href: address(target, app.graph), 'data-key': `link ${text}`, ...attributes }, text);
}

function layerLink(state, layer) {
  return link(app.graph.layers[layer].name, toLayer(state, layer), state);
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return el('dl', { class: 'facts' }, shown.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
}

/** A table; cells that are numbers stand on the right, and rows may be marked. */
function table(caption, headings, rows) {
  const head = headings.map((heading) => {
    const { text, onclick, sorted, title, numeric } = typeof heading === 'string' ? { text: heading } : heading;
    const inside = onclick ? el('button', { type: 'button', onclick, title, 'data-key': `sort ${text}` }, text, sorted ? (sorted === 'descending' ? ' ▼' : ' ▲') : '') : text;
    return el('th', { scope: 'col', 'aria-sort': sorted, class: numeric ? 'number' : null }, inside);
  });
  const body = rows.map(({ cells, marked }) =>
    el('tr', { class: marked ? 'marked' : null }, cells.map((cell) =>
      el('td', { class: typeof cell === 'number' ? 'number' : null }, typeof cell === 'number' ? number(cell) : cell))));
  return el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
    el('table', {}, el('caption', {}, caption), el('thead', {}, el('tr', {}, head)), el('tbody', {}, body)));
}

/** A query in SQL, folded, with a button that copies it. */
function sqlBox(title, text, { open = false } = {}) {
  const ask = `emergraph sql ${app.graph.about.store} QUERY`;
  return el('details', { class: 'sql', open },
    el('summary', { 'data-key': `sql ${title}` }, `SQL: ${title}`),
    el('div', { class: 'actions' }, copyButton('Copy the SQL', 'SQL', () => text), el('span', { class: 'lead' }, `for ${ask}`)),
    el('pre', { tabindex: 0 }, el('code', {}, text)));
}

function pager(state, total) {
  const pages = Math.max(1, Math.ceil(total / ROWS));
  const page = Math.min(state.page, pages - 1);
  const go = (text, to, there) => there
    ? el('button', { type: 'button', 'data-key': text, onclick: () => app.go({ ...state, page: to }) }, text)
    : el('button', { type: 'button', disabled: true }, text);
  const nav = pages === 1 ? null : el('div', { class: 'pages' },
    go('First', 0, page > 0), go('Back', page - 1, page > 0),
    el('span', {}, `page ${number(page + 1)} of ${number(pages)}`),
    go('Next', page + 1, page < pages - 1), go('Last', pages - 1, page < pages - 1));
  return { first: page * ROWS, nav };
}

function findingList(state, numbers) {
  return el('ul', { class: 'points' }, numbers.map((i) => {
    const { severity, grade, sentence, action, layers, units, about } = app.graph.findings[i];
    const some = [...new Set(layers)].slice(0, 6);
    const there = [...units].slice(0, 8);
    return el('li', { class: severity },
      el('p', {}, el('span', { class: 'severity' }, `${severity}, ${grade}: `), sentence),
      el('p', { class: 'action' }, action),
      some.length ? el('p', {}, 'Layers: ', some.map((layer, k) => [k ? ', ' : '', link(app.graph.layers[layer].name, { ...toLayer(state, layer), by: `finding-${i}` }, state)]), layers.length > some.length ? ` and ${layers.length - some.length} more` : '') : null,
      there.length ? el('p', {}, `Units (${number(about)}): `, there.map((unit, k) => [k ? ', ' : '', unitLink(state, unit)]), units.size > there.length ? ' …' : '') : null);
  }));
}

function unitLink(state, unit, { onTrail = false, short = false } = {}) {
  const name = short ? `[${app.graph.position(unit)}]` : app.graph.unitName(unit);
  return link(name, toUnit(state, unit, { onTrail }), state, { 'data-key': `unit ${unit}` });
}

/** Columns of units that a table shows: those chosen, or a few of each source. */
function shownColumns(state) {
  if (state.columns !== null) return state.columns;
  const wanted = ['audit.findings', 'activity.mean', 'unit_influence.effect', 'edges.edges in', 'edges.edges out', 'edges.|w| in', 'edges.|w| out'];
  return wanted.map((name) => app.graph.columns.findIndex((column) => column.name === name)).filter((i) => i >= 0);
}

/** Boxes to tick for the columns of a table. */
function columnChoice(state) {
  const chosen = new Set(shownColumns(state));
  const groups = new Map();
  app.graph.columns.forEach((column, i) => {
    if (!groups.has(column.from)) groups.set(column.from, []);
    groups.get(column.from).push(i);
  });
  const toggle = (i) => {
    const next = new Set(chosen);
    if (!next.delete(i)) next.add(i);
    app.go({ ...state, columns: [...next].sort((a, b) => a - b) });
  };
  return el('details', { open: app.choosing, ontoggle: (event) => (app.choosing = event.target.open) },
    el('summary', { 'data-key': 'columns' }, 'Columns'),
    [...groups].map(([from, members]) => el('fieldset', {}, el('legend', {}, from),
      members.map((i) => el('label', { title: app.graph.columns[i].about },
        el('input', { type: 'checkbox', checked: chosen.has(i), 'data-key': `column ${i}`, onchange: () => toggle(i) }),
        ` ${app.graph.columns[i].title}`)))));
}

/** The units of a layer, sorted by a column; those without a value come last. */
function sortedUnits(layer, { column, falling }) {
  const { first, n } = app.graph.layers[layer];
  const units = Array.from({ length: n }, (_, i) => first + i);
  if (column === null) return falling ? units.reverse() : units;
  const { values } = app.graph.columns[column];
  const sign = falling ? -1 : 1;
  return units.sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
    return x === y ? a - b : x < y ? -sign : sign;
  });
}

function unitTable(state, layer) {
  const { graph } = app;
  const overlay = app.overlay;
  const columns = shownColumns(state);
  const only = state.only === 'marked';
  let units = sortedUnits(layer, state.sort);
  const all = units.length;
  if (only) units = units.filter((unit) => overlay.unit(unit) !== null && !overlay.unit(unit).plain);
  const { first, nav } = pager(state, units.length);
  const sortBy = (column, falling) => () => app.go({ ...state, page: 0, sort: { column, falling } });
  const headings = [
    { text: 'unit', onclick: sortBy(null, state.sort.column === null && !state.sort.falling), sorted: state.sort.column === null ? (state.sort.falling ? 'descending' : 'ascending') : null },
    ...columns.map((i) => {
      const { title, from, about } = graph.columns[i];
      const mine = state.sort.column === i;
      const text = from === 'activity' || from === 'unit_influence' || from === 'circuit_units' ? `${from.replace('unit_', '').replace('_units', '')} ${title}` : title;
      return { text, numeric: true, title: about, onclick: sortBy(i, mine ? !state.sort.falling : true), sorted: mine ? (state.sort.falling ? 'descending' : 'ascending') : null };
    }),
    ...(overlay.group ? [overlay.group === 'Numbers' ? 'overlay' : overlay.group.toLowerCase()] : []),
  ];
  const rows = units.slice(first, first + ROWS).map((unit) => {
    const mark = overlay.unit(unit);
    return {
      marked: mark !== null && !mark.plain,
      cells: [
        unitLink(state, unit, { short: true }),
        ...columns.map((i) => (Number.isNaN(graph.columns[i].values[unit]) ? el('span', { class: 'number' }, '–') : graph.columns[i].values[unit])),
        ...(overlay.group ? [mark === null ? '' : mark.plain ? mark.text : el('span', { class: 'mark' }, `● ${mark.text}`)] : []),
      ],
    };
  });
  const filter = overlay.group && overlay.group !== 'Numbers'
    ? el('label', {}, el('input', { type: 'checkbox', checked: only, 'data-key': 'only', onchange: () => app.go({ ...state, page: 0, only: only ? '' : 'marked' }) }), ` only marked units`)
    : null;
  const caption = `${counted(units.length, 'unit')}${only ? ` of ${number(all)}, marked by: ${overlay.title}` : ''}`;
  return [columnChoice(state), filter, table(caption, headings, rows), nav];
}

/** The question behind a table of units. */
function unitsSql(state, layer, first) {
  const { column, falling } = state.sort;
  const order = column === null
    ? `u.id${falling ? ' DESC' : ''}`
    : `"${app.graph.columns[column].name.replaceAll('"', '""')}" ${falling ? 'DESC' : 'ASC'} NULLS LAST, u.id`;
  const text = app.graph.about.sql.units.replace('{layer}', () => ` AND u.layer = ${app.graph.layers[layer].id}`).replace('{order}', () => order);
  return `${text}\nLIMIT ${ROWS} OFFSET ${first}`;
}

function edgesSql(unit, side) {
  const [here] = side === 'in' ? ['dst'] : ['src'];
  const other = side === 'in' ? 'src' : 'dst';
  return `SELECT src_layer, src, layer, dst, kind, block, weight, coalesce(l1, 1) AS strength\nFROM edges WHERE graph = ${app.graph.about.graph} AND ${here} = ${unit}\nORDER BY strength DESC, block, ${other} LIMIT ${app.graph.about.k}`;
}

/** A value of an edge as a cell: its weight, or why it has none. */
function weightCell(edge) {
  const weight = app.graph.weight[edge];
  if (!Number.isNaN(weight)) return weight;
  return app.graph.blocks[app.graph.block[edge]].tensor === null ? 'no weight' : 'NaN';
}
