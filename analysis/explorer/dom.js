// Elements of the page. Every text becomes a text node: nothing that a file names is ever markup.

const XMLNS = 'http://www.w3.org/2000/svg';

/** An element with attributes, handlers (`onclick`) and children; children that are no elements are texts. */
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(XMLNS, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A number as a person reads it: whole ones with thousands parted, others with four digits. */
function number(value) {
  if (value === null || value === undefined) return '–';
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString('en-US');
  const rounded = Number(value.toPrecision(4));
  if (Math.abs(rounded) >= 1e4 && Math.abs(rounded) < 1e9) return rounded.toLocaleString('en-US');
  return String(rounded);
}

function counted(n, one, several = `${one}s`) {
  return `${number(n)} ${n === 1 ? one : several}`;
}

/** Tell readers who do not see the page what happened. */
function say(text) {
  document.getElementById('status').textContent = text;
}

async function copied(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el('textarea', { class: 'visually-hidden' });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
  say(`${what} copied`);
}

/** A button that copies a text and says so on itself. */
function copyButton(label, what, text) {
  const button = el('button', { type: 'button', 'data-key': `copy ${label}` }, label);
  button.addEventListener('click', async () => {
    await copied(text(), what);
    button.textContent = 'Copied';
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
