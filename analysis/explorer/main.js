// The page: unpacks its data, and shows what the address says.

const SHOWN = { network: networkView, block: blockView, layer: layerView, unit: unitView, paths: pathsView };

/** What the page is about, and what it shows at the moment. */
const app = {
  graph: null,
  state: null,
  picture: null,
  overlays: null,
  overlay: null,
  /** Whether the choice of columns is open. */
  choosing: false,
  go(state) {
    location.hash = address(state, app.graph);
  },
};

function fillOverlays() {
  const select = document.getElementById('overlay');
  const groups = new Map();
  for (const [word, overlay] of app.overlays) {
    if (!groups.has(overlay.group)) groups.set(overlay.group, []);
    const title = overlay.title.length > 60 ? `${overlay.title.slice(0, 59)}…` : overlay.title;
    groups.get(overlay.group).push(el('option', { value: word }, title));
  }
  for (const [group, options] of groups) {
    select.append(...(group ? [el('optgroup', { label: group }, options)] : options));
  }
  select.addEventListener('change', () => app.go({ ...app.state, by: select.value, only: '' }));
}

/** The line that says where the reader is, how they came there, and which units are picked for paths. */
function showWhere(state, crumbs) {
  const { graph } = app;
  const steps = [state.view === 'network' ? el('span', { 'aria-current': 'page' }, 'network') : link('network', toNetwork(state), state)];
  crumbs.forEach((crumb, i) => {
    const last = i === crumbs.length - 1 && typeof crumb === 'string';
    steps.push(el('span', { 'aria-hidden': 'true' }, '›'), last ? el('span', { 'aria-current': 'page' }, crumb) : crumb);
  });
  const trail = [];
  if (state.view === 'unit' && state.trail.length) {
    trail.push(el('span', {}, 'Trail:'));
    [...state.trail, state.unit].forEach((unit, i, all) => {
      if (i) trail.push(el('span', {}, graph.between(all[i - 1], unit) >= 0 ? '→' : '←'));
      trail.push(i === state.trail.length ? el('span', {}, graph.unitName(unit)) : link(graph.unitName(unit), { ...toUnit(state, unit), trail: all.slice(0, i) }, state, { 'data-key': `trail ${i}` }));
    });
  }
  const picks = [];
  for (const [name, text] of [['from', 'Paths from'], ['to', 'to']]) {
    if (state[name] !== null) picks.push(el('span', {}, text), unitLink(state, state[name]), link('✕', { ...state, [name]: null, view: state.view === 'paths' ? 'network' : state.view }, state, { 'aria-label': `forget ${name}`, 'data-key': `forget ${name}` }));
  }
  if (state.from !== null && state.to !== null && state.view !== 'paths') picks.push(link('Show paths', toPaths(state), state));
  else if (picks.length && state.view !== 'paths') picks.push(el('span', {}, 'pick the other unit'));
  const share = copyButton('Copy link', 'Link', () => location.href);
  document.getElementById('where').replaceChildren(...steps, share,
    ...(trail.length ? [el('span', { class: 'picks' }, trail.flatMap((part) => [part, ' ']))] : []),
    ...(picks.length ? [el('span', { class: 'picks' }, picks.flatMap((part) => [part, ' ']))] : []));
}

function showLegend({ kinds = [], signs = false, note = '' }) {
  const shown = signs
    ? [el('span', {}, lineSample('--c1', null), 'positive'), el('span', {}, lineSample('--c2', '6 3'), 'negative'), el('span', {}, note)]
    : lineLegend(kinds.filter((kind) => LINES[kind]));
  const overlay = app.overlay.group ? [el('span', {}, `Coloured: ${app.overlay.title}`)] : [];
  document.getElementById('legend').replaceChildren(...shown, ...overlay);
}

/** Show what the address says; the focus stays with what was used, or goes to the panel. */
function show() {
  const before = app.state;
  app.state = readAddress(location.hash, app.graph);
  if (!app.overlays.has(app.state.by)) app.state.by = '';
  app.overlay = app.overlays.get(app.state.by);
  document.getElementById('overlay').value = app.state.by;
  const used = document.activeElement;
  const key = used?.dataset?.key;
  const left = used && used.closest('#panel, #where, .search');
  const view = SHOWN[app.state.view](app.state);
  document.title = `${view.title} · ${app.graph.about.title} · emergraph explorer`;
  const panel = document.getElementById('panel');
  panel.replaceChildren(...view.panel.flat(Infinity).filter((part) => part !== null));
  showWhere(app.state, view.crumbs);
  showLegend(view.picture); // first: its height decides what the picture has
  app.picture.show(view.picture);
  const same = before !== null && before.view === app.state.view && before.layer === app.state.layer && before.unit === app.state.unit && before.fold === app.state.fold && before.copy === app.state.copy;
  if (before === null) return;
  say(view.title);
  const again = same && key ? document.querySelector(`[data-key="${CSS.escape(key)}"]`) : null;
  if (again) again.focus();
  else if (left) panel.focus({ preventScroll: true });
  if (!same && panel.getBoundingClientRect().top < 0) window.scrollTo({ top: 0 });
}

function fail(error) {
  document.documentElement.dataset.state = 'failed';
  document.querySelector('main').replaceChildren(el('p', { class: 'failure' }, `This page could not be shown: ${error.message}. It needs a browser of 2023 or later.`));
}

async function start() {
  const data = document.getElementById('data');
  const { header, arrays } = await unpacked(data.textContent);
  data.remove();
  app.graph = new Graph(header, arrays);
  app.overlays = overlaysOf(app.graph);
  app.picture = new Picture(document.getElementById('canvas'), (href) => (location.hash = href));
  fillOverlays();
  setUpSearch();
  document.getElementById('zoom-in').addEventListener('click', () => app.picture.zoomBy(1.3));
  document.getElementById('zoom-out').addEventListener('click', () => app.picture.zoomBy(1 / 1.3));
  document.getElementById('zoom-fit').addEventListener('click', () => app.picture.fit());
  window.addEventListener('hashchange', show);
  show();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    document.documentElement.dataset.state = 'ready';
    document.documentElement.dataset.picture = String(Math.round(performance.now()));
  }));
}

start().catch(fail);
