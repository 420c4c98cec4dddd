// The picture: boxes and lines, drawn by Cytoscape.js on a canvas.

const BOX = { width: 190, height: 40 };
/** Below this zoom names cannot be read: a larger picture is shown in part, from its top. */
const LEAST_ZOOM = 0.55;

const LINES = {
  weight: ['--c1', 'solid'],
  recurrent: ['--c4', 'dashed'],
  identity: ['--muted', 'solid'],
  gate: ['--c3', 'solid'],
  attention: ['--c5', 'solid'],
  norm: ['--muted', 'dotted'],
  opaque: ['--c2', 'dashed'],
};
const NEURONS = new Set(['input', 'embedding', 'dense', 'conv', 'rnn_gate', 'rnn_cell', 'rnn_hidden']);

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function pictureStyle() {
  const [ink, muted, paper, page, mark] = ['--ink', '--muted', '--paper', '--page', '--c2'].map(colour);
  const kinds = Object.entries(LINES).map(([kind, [name, line]]) => ({
    selector: `edge.${kind}`,
    style: { 'line-color': colour(name), 'target-arrow-color': colour(name), 'line-style': line },
  }));
  return [
    {
      selector: 'node',
      style: {
        shape: 'round-rectangle', width: 'data(width)', height: 'data(height)', label: 'data(label)',
        'text-wrap': 'wrap', 'text-max-width': 'data(width)', 'text-valign': 'center', 'text-halign': 'center',
        'font-size': 11.5, 'line-height': 1.2, 'font-family': 'DejaVu Sans, Verdana, sans-serif', color: ink,
        'background-color': paper, 'border-color': muted, 'border-width': 1,
      },
    },
    { selector: 'node.neurons', style: { 'border-color': ink, 'border-width': 1.5 } },
    { selector: 'node.structural', style: { 'corner-radius': 18 } },
    { selector: 'node.outside', style: { 'border-style': 'dashed', color: muted, 'background-color': page } },
    {
      selector: 'node.frame',
      style: {
        'background-color': page, 'border-style': 'dashed', 'text-valign': 'top', 'font-weight': 'bold',
        'font-size': 14, 'text-margin-y': -2, 'z-compound-depth': 'bottom', 'z-index': 0,
      },
    },
    { selector: 'node[share]', style: { 'background-color': mark, 'background-opacity': 'data(share)' } },
    { selector: 'node.ringed', style: { 'border-color': mark, 'border-width': 3 } },
    { selector: 'node.current', style: { 'border-color': colour('--c1'), 'border-width': 4 } },
    {
      selector: 'node.cursor',
      style: { 'outline-color': colour('--c1'), 'outline-width': 3, 'outline-offset': 3 },
    },
    {
      selector: 'edge',
      style: {
        width: 'data(width)', 'line-color': muted, 'line-opacity': 0.75, 'curve-style': 'bezier',
        'target-arrow-shape': 'triangle', 'target-arrow-color': muted, 'arrow-scale': 0.7,
      },
    },
    ...kinds,
    {
      selector: 'edge.ahead, edge.back',
      style: {
        'curve-style': 'unbundled-bezier', 'control-point-distances': 'data(bend)', 'control-point-weights': 0.5,
        'edge-distances': 'endpoints',
      },
    },
    // ahead on the right, back in time on the left, as on the map of the report
    { selector: 'edge.ahead', style: { 'source-endpoint': '95px 8px', 'target-endpoint': '95px -8px' } },
    { selector: 'edge.back', style: { 'source-endpoint': '-95px 0px', 'target-endpoint': '-95px -8px' } },
    { selector: 'edge.loop', style: { 'loop-direction': '-90deg', 'loop-sweep': '-30deg', 'control-point-step-size': 150 } },
    { selector: 'edge.across', style: { 'source-endpoint': '90deg', 'target-endpoint': '270deg' } },
    { selector: 'edge[before]', style: { 'source-label': 'data(before)', 'source-text-offset': 34 } },
    { selector: 'edge[behind]', style: { 'target-label': 'data(behind)', 'target-text-offset': 40 } },
    {
      selector: 'edge',
      style: {
        'font-size': 10, color: ink, 'text-background-color': paper,
        'text-background-opacity': 0.85, 'text-background-padding': 1,
      },
    },
    { selector: 'edge.positive', style: { 'line-color': colour('--c1'), 'target-arrow-color': colour('--c1') } },
    {
      selector: 'edge.negative',
      style: { 'line-color': mark, 'target-arrow-color': mark, 'line-style': 'dashed' },
    },
    { selector: 'edge.ringed', style: { 'underlay-color': mark, 'underlay-opacity': 0.3, 'underlay-padding': 4 } },
  ];
}

/** Places for boxes in rows, each row ordered so that lines are short. */
function inRows(nodes, edges, { across, down }) {
  const rows = [...new Set(nodes.map((node) => node.row))].sort((a, b) => a - b);
  const members = rows.map((row) => nodes.filter((node) => node.row === row));
  const place = new Map();
  const spread = () => members.forEach((row) => row.forEach((node, i) => place.set(node.id, i - (row.length - 1) / 2)));
  const beside = new Map(nodes.map((node) => [node.id, []]));
  for (const { source, target } of edges) {
    beside.get(source)?.push(target);
    beside.get(target)?.push(source);
  }
  spread();
  for (let sweep = 0; sweep < 6; sweep++) {
    for (const row of sweep % 2 ? [...members].reverse() : members) {
      const wanted = new Map(row.map((node) => {
        const near = beside.get(node.id).filter((id) => place.has(id));
        return [node.id, near.length ? near.reduce((sum, id) => sum + place.get(id), 0) / near.length : place.get(node.id)];
      }));
      row.sort((a, b) => wanted.get(a.id) - wanted.get(b.id));
    }
    spread();
  }
  return new Map(nodes.map((node) => [
    node.id,
    { x: place.get(node.id) * across, y: rows.indexOf(node.row) * down },
  ]));
}

/** The canvas, with the keys that move on it. */
class Picture {
  constructor(container, follow) {
    this.container = container;
    this.follow = follow;
    this.cy = cytoscape({
      container, elements: [], style: pictureStyle(), layout: { name: 'preset' }, minZoom: 0.04, maxZoom: 3,
      autoungrabify: true, autounselectify: true, boxSelectionEnabled: false,
    });
    this.cy.on('tap', 'node', (event) => this.open(event.target));
    this.cy.on('mouseover', 'node', (event) => (container.style.cursor = event.target.data('href') ? 'pointer' : ''));
    this.cy.on('mouseout', 'node', () => (container.style.cursor = ''));
    container.addEventListener('keydown', (event) => this.onKey(event));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.cy.style(pictureStyle()));
    new ResizeObserver(() => this.cy.resize()).observe(container);
  }

  get compact() {
    return this.container.clientWidth < 520;
  }

  /** Draw elements; what `focus` names is brought to the middle, or else the whole, or its top. */
  show({ nodes, edges, focus = null, label }) {
    this.cy.batch(() => {
      this.cy.elements().remove();
      this.cy.add(nodes.map(({ classes = [], position, ...data }) => ({ group: 'nodes', data, position, classes })));
      this.cy.add(edges.map(({ classes = [], ...data }) => ({ group: 'edges', data, classes })));
    });
    this.container.setAttribute('aria-label', label);
    this.focus = focus;
    this.fit();
  }

  fit() {
    this.cy.resize();
    const box = this.cy.elements().boundingBox();
    if (!Number.isFinite(box.w) || box.w === 0) return;
    const [width, height] = [this.cy.width(), this.cy.height()];
    const whole = Math.min((width - 20) / box.w, (height - 20) / box.h, 1.1);
    const focus = this.focus === null ? null : this.cy.getElementById(this.focus);
    const zoom = whole >= LEAST_ZOOM ? whole : Math.min(0.9, Math.max(LEAST_ZOOM, (width - 20) / box.w));
    this.cy.zoom(zoom);
    if (whole >= LEAST_ZOOM) {
      this.cy.center();
    } else if (focus !== null && focus.nonempty()) {
      this.cy.center(focus);
    } else {
      const first = this.cy.nodes().reduce((a, b) => (a === undefined || b.position('y') < a.position('y') ? b : a), undefined);
      const wide = box.w * zoom > width;
      const x = wide ? width / 2 - first.position('x') * zoom : (width - (box.x1 + box.x2) * zoom) / 2;
      this.cy.pan({ x, y: 12 - box.y1 * zoom });
    }
  }

  zoomBy(factor) {
    const middle = { x: this.cy.width() / 2, y: this.cy.height() / 2 };
    this.cy.zoom({ level: this.cy.zoom() * factor, renderedPosition: middle });
  }

  open(node) {
    if (node.data('href')) this.follow(node.data('href'));
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (ways[event.key]) this.move(ways[event.key]);
    else if (event.key === 'Enter' && this.at().nonempty()) this.open(this.at());
    else if (event.key === '+' || event.key === '=') this.zoomBy(1.3);
    else if (event.key === '-') this.zoomBy(1 / 1.3);
    else if (event.key === '0') this.fit();
    else return;
    event.preventDefault();
  }

  /** The box that the arrow keys are at: the current one at first, or the topmost. */
  at() {
    return this.cy.nodes('.cursor');
  }

  move([dx, dy]) {
    const boxes = this.cy.nodes().filter((node) => node.data('href') !== undefined);
    const from = this.at();
    let next;
    if (from.empty()) {
      const current = this.cy.nodes('.current');
      next = current.nonempty() ? current : boxes.sort((a, b) => a.position('y') - b.position('y'))[0];
    } else {
      const here = from.position();
      let least = Infinity;
      boxes.forEach((node) => {
        if (node.same(from)) return;
        const [x, y] = [node.position('x') - here.x, node.position('y') - here.y];
        const along = x * dx + y * dy;
        const aside = Math.abs(x * dy) + Math.abs(y * dx);
        if (along > 1 && along + 2 * aside < least) [least, next] = [along + 2 * aside, node];
      });
    }
    if (next === undefined) return;
    this.cy.nodes().removeClass('cursor');
    next.addClass('cursor');
    const shown = next.renderedBoundingBox();
    if (shown.x1 < 0 || shown.y1 < 0 || shown.x2 > this.cy.width() || shown.y2 > this.cy.height()) this.cy.center(next);
    say(next.data('label'));
  }
}

/** A short line that looks as it does in the picture. */
function lineSample(name, dash) {
  return svg('svg', { width: 26, height: 8, 'aria-hidden': 'true' },
    svg('path', { d: 'M1 4h24', stroke: `var(${name})`, 'stroke-width': 3, 'stroke-dasharray': dash }));
}

/** What lines of some kinds look like. */
function lineLegend(kinds) {
  const dashes = { solid: null, dashed: '6 3', dotted: '2 3' };
  return kinds.map((kind) => el('span', {}, lineSample(LINES[kind][0], dashes[LINES[kind][1]]), kind));
}
