// The data of the page: a text that is unpacked, and the graph that is in it.

const TYPES = { f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };

/** Kinds of edges that may lead back: paths along them have no end. */
const CYCLIC = new Set(['recurrent', 'norm']);

/** Header and arrays of a text that `packing.py` made. */
async function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(raw.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + length)));
  const arrays = {};
  let at = 4 + length;
  for (const [name, type, count] of header.arrays) {
    const array = new TYPES[type](count);
    const size = array.BYTES_PER_ELEMENT;
    const target = new Uint8Array(array.buffer);
    for (let plane = 0; plane < size; plane++) {
      for (let i = 0, from = at + plane * count; i < count; i++) target[i * size + plane] = raw[from + i];
    }
    arrays[name] = array;
    at += size * count;
  }
  return { header, arrays };
}

/** Place of the last value that is not above another in an ascending array. */
function placeBelow(values, wanted) {
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (values[middle] <= wanted) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Where the entries of each unit begin in a list that is ordered by unit. */
function starts(counts) {
  const found = new Uint32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) found[i + 1] = found[i] + counts[i];
  return found;
}

/** A graph: layers, blocks and units with their columns, and the edges that were kept. */
class Graph {
  constructor(header, arrays) {
    this.about = header;
    this.layers = header.layers;
    this.blocks = header.blocks;
    this.folds = header.folds;
    /** Of each block, 1 where its edges never lead back. */
    this.ahead = Uint8Array.from(this.blocks, (block) => Number(!CYCLIC.has(block.kind)));
    this.columns = header.columns.map((column, i) => ({ ...column, values: arrays[`column${i}`] }));
    this.n = header.units;
    this.role = arrays.role;
    this.activation = arrays.activation;
    this.byId = new Map(this.layers.map((layer, i) => [layer.id, i]));
    const used = this.layers.map((_, i) => i).filter((i) => this.layers[i].n > 0);
    used.sort((a, b) => this.layers[a].first - this.layers[b].first);
    this.inOrder = used;
    this.firsts = Float64Array.from(used, (i) => this.layers[i].first);
    this.hasEdges = arrays.dst !== undefined;
    this.dst = arrays.dst ?? new Uint32Array(0);
    this.block = arrays.block ?? new Uint32Array(0);
    this.weight = arrays.weight ?? new Float32Array(0);
    this.own = arrays.strength ?? new Float32Array(0);
    this.outStart = starts(arrays.out ?? new Uint32Array(this.n));
    this.indexIncoming();
    this.readFindings(arrays);
    this.readCircuits(arrays);
  }

  /** Edges by target, and the source of each. */
  indexIncoming() {
    const counts = new Uint32Array(this.n);
    for (const unit of this.dst) counts[unit]++;
    this.inStart = starts(counts);
    this.src = new Uint32Array(this.dst.length);
    this.incoming = new Uint32Array(this.dst.length);
    const next = this.inStart.slice();
    for (let unit = 0; unit < this.n; unit++) {
      for (let edge = this.outStart[unit]; edge < this.outStart[unit + 1]; edge++) {
        this.src[edge] = unit;
        this.incoming[next[this.dst[edge]]++] = edge;
      }
    }
  }

  readFindings(arrays) {
    let at = 0;
    this.findingsOf = new Map();
    this.findings = this.about.findings.map((finding, number) => {
      const units = new Set(arrays.finding_units.subarray(at, at + finding.units));
      at += finding.units;
      for (const unit of units) {
        if (!this.findingsOf.has(unit)) this.findingsOf.set(unit, []);
        this.findingsOf.get(unit).push(number);
      }
      return { ...finding, units };
    });
  }

  readCircuits(arrays) {
    let unit = 0;
    let edge = 0;
    this.circuits = this.about.circuits.map((circuit) => {
      const units = new Set(arrays.circuit_units.subarray(unit, unit + circuit.units));
      const edges = new Set();
      for (let i = edge; i < edge + circuit.edges; i++) {
        edges.add(`${arrays.circuit_src[i]}>${arrays.circuit_dst[i]}`);
      }
      unit += circuit.units;
      edge += circuit.edges;
      return { ...circuit, units, edges };
    });
  }

  /** Place of a unit's layer in `layers`. */
  layerOf(unit) {
    return this.inOrder[placeBelow(this.firsts, unit)];
  }

  position(unit) {
    return unit - this.layers[this.layerOf(unit)].first;
  }

  unitName(unit) {
    return `${this.layers[this.layerOf(unit)].name}[${this.position(unit)}]`;
  }

  shortUnitName(unit) {
    return `${this.layers[this.layerOf(unit)].short}[${this.position(unit)}]`;
  }

  /** |w|, the l1 norm of a kernel, 1 without a weight. */
  strength(edge) {
    const own = this.own[edge];
    return Number.isNaN(own) ? Math.abs(this.weight[edge]) : own;
  }

  /** Edges into a unit, the strongest first; of equal ones, as SQL orders them. */
  into(unit) {
    const found = Array.from(this.incoming.subarray(this.inStart[unit], this.inStart[unit + 1]));
    return found.sort((a, b) => this.strength(b) - this.strength(a) || this.block[a] - this.block[b] || a - b);
  }

  /** Edges out of a unit, the strongest first, as they are kept. */
  outOf(unit) {
    const found = [];
    for (let edge = this.outStart[unit]; edge < this.outStart[unit + 1]; edge++) found.push(edge);
    return found;
  }

  /** The k strongest edges of a side. */
  strongest(unit, side) {
    return (side === 'in' ? this.into(unit) : this.outOf(unit)).slice(0, this.about.k);
  }

  kind(edge) {
    return this.blocks[this.block[edge]].kind;
  }

  /** An edge between two units that was kept, or -1. */
  between(source, target) {
    for (let edge = this.outStart[source]; edge < this.outStart[source + 1]; edge++) {
      if (this.dst[edge] === target) return edge;
    }
    return -1;
  }

  /** The fold and the copy of it in which a layer is, or null. */
  copyOf(layer) {
    for (let fold = 0; fold < this.folds.length; fold++) {
      const { start, size, times } = this.folds[fold];
      if (layer >= start && layer < start + size * times) {
        return { fold, copy: Math.floor((layer - start) / size) };
      }
    }
    return null;
  }

  /** The layer of the map that stands for a layer. */
  standsFor(layer) {
    const where = this.copyOf(layer);
    return where === null ? layer : layer - where.copy * this.folds[where.fold].size;
  }
}
