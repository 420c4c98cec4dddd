// What is shown, as the fragment of the address: a link restores it, and Back goes back.

const VIEWS = ['network', 'block', 'layer', 'unit', 'paths'];

function whole(text, below) {
  return /^\d{1,9}$/.test(text ?? '') && Number(text) < below ? Number(text) : null;
}

/** The state that a fragment means. What it names and the page does not have is left out. */
function readAddress(fragment, graph) {
  const given = new URLSearchParams(fragment.replace(/^#/, ''));
  const units = (name) =>
    (given.get(name) ?? '')
      .split('.')
      .map((text) => whole(text, graph.n))
      .filter((unit) => unit !== null);
  const layer = graph.byId.get(whole(given.get('layer'), 1e9));
  const [fold, copy] = (given.get('block') ?? '').split('.');
  const [column, order] = (given.get('sort') ?? '').split('.');
  const [unit] = units('unit');
  const [from] = units('from');
  const [to] = units('to');
  const state = {
    view: 'network',
    layer: layer ?? null,
    fold: whole(fold, graph.folds.length),
    copy: null,
    unit: unit ?? null,
    trail: units('trail'),
    from: from ?? null,
    to: to ?? null,
    sort: { column: whole(column, graph.columns.length), falling: order === 'desc' },
    page: whole(given.get('page'), 1e7) ?? 0,
    by: given.get('by') ?? '',
    columns: given.has('columns')
      ? given.get('columns').split('.').map((text) => whole(text, graph.columns.length)).filter((c) => c !== null)
      : null,
    only: given.get('only') ?? '',
  };
  if (state.fold !== null) state.copy = whole(copy, graph.folds[state.fold].times) ?? 0;
  if (given.get('show') === 'paths' && state.from !== null && state.to !== null) state.view = 'paths';
  else if (state.unit !== null) state.view = 'unit';
  else if (state.layer !== null) state.view = 'layer';
  else if (state.fold !== null) state.view = 'block';
  return state;
}

/** The fragment that means a state. */
function address(state, graph) {
  const parts = [];
  if (state.view === 'block') parts.push(`block=${state.fold}.${state.copy}`);
  if (state.view === 'layer') parts.push(`layer=${graph.layers[state.layer].id}`);
  if (state.view === 'unit') {
    parts.push(`unit=${state.unit}`);
    if (state.trail.length) parts.push(`trail=${state.trail.join('.')}`);
  }
  if (state.view === 'paths') parts.push('show=paths');
  if (state.view === 'layer' || state.view === 'network') {
    if (state.view === 'layer' && state.sort.column !== null) {
      parts.push(`sort=${state.sort.column}.${state.sort.falling ? 'desc' : 'asc'}`);
    }
    if (state.page) parts.push(`page=${state.page}`);
    if (state.only) parts.push(`only=${encodeURIComponent(state.only)}`);
  }
  if (state.from !== null) parts.push(`from=${state.from}`);
  if (state.to !== null) parts.push(`to=${state.to}`);
  if (state.by) parts.push(`by=${encodeURIComponent(state.by)}`);
  if (state.columns !== null) parts.push(`columns=${state.columns.join('.')}`);
  return `#${parts.join('&')}`;
}

/** Another state, with the same picks, overlay and columns. */
function elsewhere(state, changes) {
  const bare = { layer: null, fold: null, copy: null, unit: null, trail: [], page: 0, only: '' };
  return { ...state, ...bare, sort: { column: null, falling: false }, ...changes };
}

const toNetwork = (state) => elsewhere(state, { view: 'network' });
const toLayer = (state, layer, more = {}) => elsewhere(state, { view: 'layer', layer, ...more });
const toBlock = (state, fold, copy) => elsewhere(state, { view: 'block', fold, copy });
const toPaths = (state) => elsewhere(state, { view: 'paths' });

/** A unit, by itself or as the next step of the trail. */
function toUnit(state, unit, { onTrail = false } = {}) {
  const before = onTrail && state.view === 'unit' ? [...state.trail, state.unit].slice(-MOST_STEPS) : [];
  return elsewhere(state, { view: 'unit', unit, trail: before });
}

/** Steps of a trail that an address keeps. */
const MOST_STEPS = 40;
