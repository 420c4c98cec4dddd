// Search: layers by parts of their names, units by a position behind it or by their number.

const MOST_RESULTS = 30;

/** What a query finds: places of layers, and units. */
function found(graph, query) {
  const text = query.trim();
  if (!text) return { layers: [], units: [], more: 0 };
  const [, before, digits] = /^(.*?)[[:#\s]\s*(\d{1,9})\s*\]?$/.exec(text) ?? [null, text, null];
  const matching = (words) => {
    const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
    return graph.layers.map((_, i) => i).filter((i) => parts.every((part) => graph.layers[i].name.toLowerCase().includes(part)));
  };
  const layers = matching(text);
  const units = [];
  if (/^\d{1,9}$/.test(text) && Number(text) < graph.n) units.push(Number(text));
  if (digits !== null && before.trim()) {
    for (const i of matching(before)) {
      if (Number(digits) < graph.layers[i].n) units.push(graph.layers[i].first + Number(digits));
    }
  }
  const more = Math.max(0, layers.length + units.length - MOST_RESULTS);
  const shown = units.slice(0, MOST_RESULTS);
  return { units: shown, layers: layers.slice(0, MOST_RESULTS - shown.length), more };
}

function setUpSearch() {
  const input = document.getElementById('query');
  const box = document.getElementById('results');
  const close = () => (box.hidden = true);
  const links = () => [...box.querySelectorAll('a')];
  const fill = () => {
    const { graph, state } = app;
    const { layers, units, more } = found(graph, input.value);
    const item = (text, small, target) => el('li', {}, el('a', { href: address(target, graph) }, text, ' ', el('small', {}, small)));
    box.replaceChildren(el('ul', {},
      units.map((unit) => item(graph.unitName(unit), `unit ${number(unit)}`, toUnit(state, unit))),
      layers.map((i) => item(graph.layers[i].name, `${graph.layers[i].kind}, ${counted(graph.layers[i].n, 'unit')}`, toLayer(state, i)))),
    ...(more ? [el('p', {}, `and ${number(more)} more`)] : []),
    ...(units.length + layers.length ? [] : [el('p', {}, 'Nothing of that name.')]));
    box.hidden = !input.value.trim();
    if (!box.hidden) say(counted(units.length + layers.length + more, 'result'));
  };
  input.addEventListener('input', fill);
  input.addEventListener('focus', fill);
  const step = (event) => {
    const all = links();
    const at = all.indexOf(document.activeElement);
    if (event.key === 'Escape') {
      close();
      input.focus();
      close();
    } else if (event.key === 'ArrowDown' && all.length) all[Math.min(at + 1, all.length - 1)].focus();
    else if (event.key === 'ArrowUp' && at >= 0) (all[at - 1] ?? input).focus();
    else if (event.key === 'Enter' && at < 0 && all.length) all[0].click();
    else return;
    event.preventDefault();
  };
  input.addEventListener('keydown', step);
  box.addEventListener('keydown', step);
  box.addEventListener('click', close);
  document.addEventListener('click', (event) => {
    if (!event.target.closest('.search')) close();
  });
  document.querySelector('.search').addEventListener('focusout', (event) => {
    if (event.relatedTarget && !event.relatedTarget.closest('.search')) close();
  });
}
