// Try your RNA: reads a pasted RNA with the book's language model and autoencoders, and draws what they say of it.
// Plain JavaScript without a network. What it needs stands in the page (`sae_rna/analysis/try_rna.py`); nothing of what
// is pasted leaves it. Matrices are Float32Arrays, row by row; sums are taken in double precision.
"use strict";

const TryRna = (() => {
  // ---------------------------------------------------------------------------------------------- weights
  /** Numbers of [bytes of one, base64]; two bytes are half precision. */
  function numbers([size, base64]) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return size === 4 ? new Float32Array(bytes.buffer) : Float32Array.from(new Uint16Array(bytes.buffer), fromHalf);
  }

  /** The number whose sixteen bits are these (IEEE 754: sign, 5 bits of exponent, 10 of fraction). */
  function fromHalf(bits) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  }

  const unpacked = (weights) => Object.fromEntries(Object.entries(weights).map(([name, of]) => [name, numbers(of)]));

  /** What `try_rna.reader` wrote, its weights as numbers. */
  function load(content) {
    const saes = Object.entries(content.saes).map(([layer, of]) => [layer, { ...of, weights: unpacked(of.weights) }]);
    return { ...content, weights: unpacked(content.weights), saes: Object.fromEntries(saes) };
  }

  // --------------------------------------------------------------------------------- RiNALMo, as in multimolecule
  /** x W' + b: x [rows, inner], weight [outer, inner]. Four rows at a time share each weight that is fetched. */
  function linear(x, rows, weight, bias) {
    const inner = x.length / rows, outer = weight.length / inner, y = new Float32Array(rows * outer);
    for (let row = 0; row < rows; row += 4) {
      const [r0, r1, r2, r3] = [0, 1, 2, 3].map((step) => Math.min(row + step, rows - 1));
      const a = r0 * inner, b = r1 * inner, c = r2 * inner, d = r3 * inner;
      for (let o = 0; o < outer; o++) {
        const start = o * inner, first = bias ? bias[o] : 0;
        let s0 = first, s1 = first, s2 = first, s3 = first;
        for (let i = 0; i < inner; i++) {
          const w = weight[start + i];
          s0 += w * x[a + i];
          s1 += w * x[b + i];
          s2 += w * x[c + i];
          s3 += w * x[d + i];
        }
        y[r0 * outer + o] = s0;
        y[r1 * outer + o] = s1;
        y[r2 * outer + o] = s2;
        y[r3 * outer + o] = s3;
      }
    }
    return y;
  }

  function layerNorm(x, weight, bias, epsilon) {
    const width = weight.length, y = new Float32Array(x.length);
    for (let start = 0; start < x.length; start += width) {
      let mean = 0, variance = 0;
      for (let i = 0; i < width; i++) mean += x[start + i] / width;
      for (let i = 0; i < width; i++) variance += (x[start + i] - mean) ** 2 / width;
      const scale = 1 / Math.sqrt(variance + epsilon);
      for (let i = 0; i < width; i++) y[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
    }
    return y;
  }

  /** Rotary positions: halves of each head's dimensions are turned by an angle that grows with the position. */
  function rotate(x, rows, heads) {
    const width = x.length / rows, half = width / heads / 2;
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < half; i++) {
        const angle = row / 10000 ** (i / half), cos = Math.cos(angle), sin = Math.sin(angle);
        for (let start = row * width + i; start < (row + 1) * width; start += 2 * half) {
          const one = x[start], other = x[start + half];
          x[start] = one * cos - other * sin;
          x[start + half] = other * cos + one * sin;
        }
      }
    }
    return x;
  }

  /** Softmax(q k' / sqrt(width of a head)) v, head by head, [rows, width]. */
  function attention(q, k, v, rows, heads) {
    const width = q.length / rows, size = width / heads, y = new Float32Array(q.length), share = new Float64Array(rows);
    for (let head = 0; head < heads; head++) {
      for (let row = 0; row < rows; row++) {
        const at = row * width + head * size;
        let largest = -Infinity, total = 0;
        for (let other = 0; other < rows; other++) {
          const from = other * width + head * size;
          let sum = 0;
          for (let i = 0; i < size; i++) sum += q[at + i] * k[from + i];
          share[other] = sum / Math.sqrt(size);
          largest = Math.max(largest, share[other]);
        }
        for (let other = 0; other < rows; other++) total += share[other] = Math.exp(share[other] - largest);
        for (let i = 0; i < size; i++) {
          let sum = 0;
          for (let other = 0; other < rows; other++) sum += share[other] * v[other * width + head * size + i];
          y[at + i] = sum / total;
        }
      }
    }
    return y;
  }

  const plus = (x, y) => x.map((value, i) => value + y[i]);

  /** One block. As in multimolecule, attention is added to the normalised states, not to the states themselves. */
  function block(x, rows, model, number) {
    const w = (name) => model.weights[`encoder.layer.${number}.${name}`];
    const project = (of, name) => linear(of, rows, w(`${name}.weight`), w(`${name}.bias`));
    const norm = (of, name) => layerNorm(of, w(`${name}.weight`), w(`${name}.bias`), model.epsilon);
    const normed = norm(x, "attention.layer_norm");
    const [q, k] = ["query", "key"].map((name) => rotate(project(normed, `attention.self.${name}`), rows, model.heads));
    const mixed = attention(q, k, project(normed, "attention.self.value"), rows, model.heads);
    const attended = plus(project(mixed, "attention.output.dense"), normed);
    const inner = norm(attended, "layer_norm"), gate = project(inner, "intermediate.linear_gate");
    const beta = w("intermediate.bias")[0], swish = (value) => value / (1 + Math.exp(-beta * value));
    const gated = project(inner, "intermediate.linear").map((value, i) => swish(value) * gate[i]);
    return plus(project(gated, "output.dense"), attended);
  }

  /** States [tokens, width] of the layers that autoencoders read, by layer; special tokens included. */
  function hiddenStates(model, sequence) {
    const { before, letters, after } = model;
    const ids = [...before, ...Array.from(sequence, (letter) => letters[letter]), ...after];
    const embedding = model.weights["embeddings.word_embeddings.weight"], norm = "encoder.layer_norm";
    const width = model.width, layers = Object.keys(model.saes).map(Number), states = {};
    let x = new Float32Array(ids.length * width);
    ids.forEach((id, row) => x.set(embedding.subarray(id * width, (id + 1) * width), row * width));
    x = x.map((value) => value * model.scale);
    for (let layer = 1; layer <= Math.max(...layers); layer++) {
      x = block(x, ids.length, model, layer - 1);
      const last = layer === model.blocks;
      if (last) x = layerNorm(x, model.weights[`${norm}.weight`], model.weights[`${norm}.bias`], model.epsilon);
      if (layers.includes(layer)) states[layer] = x;
    }
    return states;
  }

  /** Activations [rows, latents] of an autoencoder: those above the latent's threshold and, of TopK, the k largest. */
  function encode(sae, states, width) {
    const { encoder, bias, threshold } = sae.weights, latents = bias.length;
    const all = linear(states, states.length / width, encoder, bias);
    const values = all.map((value, i) => (value > threshold[i % latents] ? value : 0));
    for (let start = 0; sae.k && start < values.length; start += latents) {
      const own = values.subarray(start, start + latents), least = own.slice().sort()[latents - sae.k];
      for (let i = 0; i < latents; i++) if (own[i] < least) own[i] = 0;
    }
    return values;
  }

  /** Activations of the shown features along an RNA, as shares of their maximum; NaN where there is no A, C, G or U. */
  function read(model, sequence) {
    const states = hiddenStates(model, sequence), first = model.before.length, values = {};
    for (const layer in states) values[layer] = encode(model.saes[layer], states[layer], model.width);
    return model.features.map(({ layer, feature, maximum }) => {
      const { rows } = model.saes[layer], column = rows.indexOf(feature);
      const value = (position) => values[layer][(first + position) * rows.length + column] / (maximum || 1);
      return Array.from(sequence, (letter, position) => ("ACGU".includes(letter) ? value(position) : NaN));
    });
  }

  // ------------------------------------------------------------------------------------- what is pasted, and pairs
  const OPENING = "([{<ABCDEFGHIJKLMNOPQRSTUVWXYZ", CLOSING = ")]}>abcdefghijklmnopqrstuvwxyz", UNPAIRED = ".,:_-~";
  const ENERGY = /\s\(\s*-?[\d.]+\s*\)$/; // as RNAfold writes it behind a structure
  /** Whether a line below a sequence is its structure. */
  const isStructure = (line) => /^[.,:_~()[\]{}<>-]+$/.test(line) && /[.()[\]{}<>]/.test(line);

  /** Name, sequence and structure (or null) of what was pasted. Throws an error of one sentence with its `field`. */
  function parse(text, brackets, model) {
    const lines = text.split(/\r?\n/).map((line) => line.trim().replace(ENERGY, ""));
    const titles = lines.filter((line) => line.startsWith(">")), below = lines.filter(isStructure);
    const remedy = "paste one RNA at a time";
    if (titles.length > 1) fail("sequence", `There are ${titles.length} headers that start with ">": ${remedy}.`);
    const letters = lines.filter((line) => !line.startsWith(">") && !isStructure(line)).join("").replace(/\s/g, "");
    const sequence = Array.from(letters.toUpperCase().replaceAll("T", "U").replaceAll("P", "N")); // P: a modified base
    if (!sequence.length) fail("sequence", "There is no sequence: paste one, such as GGGAAACCC.");
    const wrong = sequence.findIndex((letter) => !Object.hasOwn(model.letters, letter));
    const known = "take it out, or write N for an unknown base (known are A, C, G, U or T, and IUPAC codes)";
    if (wrong >= 0) fail("sequence", `"${sequence[wrong]}" at position ${wrong + 1} is no letter of an RNA: ${known}.`);
    const limit = `this page reads at most ${model.longest}: paste a part of it, or use sae-rna annotate`;
    if (sequence.length > model.longest) fail("sequence", `The RNA has ${sequence.length} nucleotides, ${limit}.`);
    const given = (brackets.trim().replace(ENERGY, "") || below.join("")).replace(/\s/g, "");
    const structure = given ? pairs(given, sequence.length) : null;
    return { name: titles.join("").slice(1).trim(), sequence: sequence.join(""), structure };
  }

  function fail(field, sentence) {
    throw Object.assign(new Error(sentence), { field });
  }

  /** A dot-bracket string and its pairs; each kind of bracket nests on its own. `inner` is the partner of each position
   * (-1: none) by pairs that cross no other of these, round brackets first; `crossing` are the others, pseudoknots. */
  function pairs(brackets, length) {
    const symbols = Array.from(brackets), [open, found] = [0, 1].map(() => Array.from(OPENING, () => []));
    const counts = `The structure has ${symbols.length} symbols, the sequence ${length} nucleotides`;
    if (symbols.length !== length) fail("structure", `${counts}: give one symbol for each nucleotide.`);
    const refuse = (i, fault) => fail("structure", `"${symbols[i]}" at position ${i + 1} of the structure ${fault}.`);
    const lonely = "has no partner: mend it, or leave the structure out";
    symbols.forEach((symbol, i) => {
      const opens = OPENING.indexOf(symbol), closes = CLOSING.indexOf(symbol);
      if (opens >= 0) open[opens].push(i);
      else if (closes >= 0 && open[closes].length) found[closes].push([open[closes].pop(), i]);
      else if (closes >= 0) refuse(i, lonely);
      else if (!UNPAIRED.includes(symbol)) refuse(i, "is no dot-bracket symbol: write . for an unpaired nucleotide");
    });
    if (open.flat().length) refuse(Math.min(...open.flat()), lonely);
    const inner = symbols.map(() => -1), crossing = [];
    for (const [i, j] of found.flat()) {
      const cross = (end, start) => end > start && start < i === end < j && start < j && i < end;
      if (inner.some(cross)) crossing.push([i, j]);
      else [inner[i], inner[j]] = [j, i];
    }
    return { symbols, inner, crossing };
  }

  /** Places [x, y] of all nucleotides. Every loop is a regular polygon with sides of length 1 whose corners are its
   * nucleotides, a stack of two pairs a square: so neighbours are 1 apart, and so are partners. */
  function layout(inner) {
    const places = inner.map(() => [0, 0]);
    /** Nucleotides of a loop from `start` to before `end`: what pairs within it enclose is passed over. */
    function loop(start, end) {
      const corners = [];
      for (let i = start; i < end; i++) {
        corners.push(i);
        if (inner[i] > i) corners.push((i = inner[i]));
      }
      return corners;
    }
    /** Places all corners but the first, turning by the same angle at each, and the loops beyond pairs among them. */
    function place(corners, sides, heading) {
      for (let n = 1; n < corners.length; n++) {
        const before = corners[n - 1], corner = corners[n], angle = heading + (2 * Math.PI * n) / sides;
        places[corner] = [places[before][0] + Math.cos(angle), places[before][1] + Math.sin(angle)];
        if (inner[before] !== corner || corner === before + 1) continue;
        const next = [before, ...loop(before + 1, corner), corner];
        place(next, next.length, angle + Math.PI);
      }
    }
    const outside = loop(0, inner.length);
    place(outside, outside.length + 1, 0); // as if there were one more: a gap between the ends
    return places;
  }

  const title = ({ concept, layer, feature }) => `${concept} (layer ${layer} feature ${feature})`;

  /** The table that is downloaded: a row for each nucleotide; empty where there is no A, C, G or U. */
  function csv(features, { sequence, structure, values }) {
    const head = ["position", "base", ...(structure ? ["structure"] : []), ...features.map(title)];
    const rows = Array.from(sequence, (base, i) => {
      const shares = values.map((of) => (Number.isNaN(of[i]) ? "" : of[i].toFixed(4)));
      return [i + 1, base, ...(structure ? [structure.symbols[i]] : []), ...shares].join();
    });
    return [head.join(), ...rows, ""].join("\n");
  }

  return { csv, hiddenStates, layout, load, pairs, parse, read, title };
})();

// ------------------------------------------------------------------------------------------------------- the page
(() => {
  const root = document.getElementById("try-rna");
  if (!root) return;
  const content = JSON.parse(document.getElementById("try-rna-content").textContent), { title } = TryRna;
  let model, shown; // weights become numbers when the first RNA is read; the RNA on the page, with its `values`

  /** An element. Texts among `children` become text, never HTML. */
  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "circle", "text", "g"].includes(tag);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const plain = { spellcheck: "false", autocapitalize: "off", autocomplete: "off" };
  const scrolling = (label, child) =>
    make("div", { class: "sae-rna-scroll", tabindex: 0, role: "group", "aria-label": label }, child);

  if (content.obstacle) return root.replaceChildren(make("p", {}, content.obstacle));
  const sequence = make("textarea", { id: "try-sequence", rows: 5, ...plain });
  const structure = make("textarea", { id: "try-structure", rows: 3, ...plain });
  const fields = { sequence, structure }, result = make("div"), said = make("p", { role: "status" });
  const problem = make("p", { role: "alert", id: "try-problem" });
  const limits = `Sequence (plain or FASTA, up to ${content.longest} nucleotides)`;
  const form = make("form", {},
    make("label", { for: "try-sequence" }, limits), sequence,
    make("label", { for: "try-structure" }, "Structure in dot-bracket notation, if it is known"), structure,
    make("button", { type: "submit", class: "try-main" }, "Read this RNA"), " ",
    make("button", { type: "reset" }, "Clear"), problem);
  root.replaceChildren(form, said, result);

  /** Where a feature fires, in words. */
  function summary({ threshold }, values) {
    const fires = values.filter((value) => value > threshold).length, of = `of ${values.length} nucleotides`;
    if (!fires) return `Fires on none ${of}.`;
    const most = Math.max(...values.map((value) => value || 0)), at = values.indexOf(most);
    const strongest = `${shown.sequence[at]}${at + 1} (${Math.round(100 * most)} % of its maximum)`;
    return `Fires on ${fires} ${of}, most strongly on ${strongest}.`;
  }

  /** A radio button with a feature's name, what the name is worth, and its activation along the RNA as bars. */
  function track(feature, values, number) {
    const bar = (value, i) => (value > 0 ? `M${i + 0.1} 20V${20 - 20 * Math.min(value, 1)}h.8V20z` : "");
    const level = `M0 ${20 - 20 * feature.threshold}H${values.length}`, id = `try-feature-${number}`;
    const radio = make("input", { type: "radio", name: "try-feature", id, "aria-describedby": `${id}-worth` });
    radio.addEventListener("change", () => colour(number));
    const name = make("strong", {}, feature.certain ? feature.concept : `${feature.concept}?`);
    const facts = ` layer ${feature.layer} feature ${feature.feature}${feature.certain ? "" : ", uncertain name"}. `;
    const size = { viewBox: `0 0 ${values.length} 20`, preserveAspectRatio: "none" };
    const picture = make("svg", { ...size, "aria-hidden": "true" }, // the label says it
      make("path", { d: values.map(bar).join(""), class: "try-bars" }), make("path", { d: level, class: "try-level" }));
    const label = [make("label", { for: id }, name, facts, summary(feature, values))];
    if (feature.page) label.push(" ", make("a", { href: feature.page }, `${title(feature)} in the atlas`));
    return make("div", { class: feature.certain ? "try-track" : "try-track try-uncertain" }, radio, ...label, picture,
      make("ul", { id: `${id}-worth` }, ...feature.worth.map((line) => make("li", {}, line))));
  }

  /** The sequence in tens, with the number of each ten's first nucleotide, and the structure below it. */
  function letters({ sequence: bases, structure: known }) {
    const tens = [];
    for (let start = 0; start < bases.length; start += 10) {
      const own = Array.from(bases.slice(start, start + 10), (base) => make("span", { class: "try-base" }, base));
      const below = known ? known.symbols.slice(start, start + 10).join("") : "";
      const number = make("span", { class: "try-number" }, start + 1);
      tens.push(make("span", { class: "try-ten" }, number, make("span", {}, ...own), make("span", {}, below)));
    }
    return make("div", { class: "try-letters", role: "img" }, ...tens);
  }

  /** The drawn structure, every tenth nucleotide with its number on the side away from its neighbours. */
  function drawing({ sequence: bases, structure: { inner, crossing } }) {
    const places = TryRna.layout(inner), [x, y] = [0, 1].map((side) => places.map((place) => place[side]));
    const [left, top] = [Math.min(...x) - 2, Math.min(...y) - 2];
    const [width, height] = [Math.max(...x) + 2 - left, Math.max(...y) + 2 - top];
    const at = (i) => places[i].map((value) => value.toFixed(3)).join(" "), line = ([i, j]) => `M${at(i)}L${at(j)}`;
    const bonds = [...inner.entries()].filter(([i, j]) => j > i).map(line).join("");
    const marks = Array.from(bases, (base, i) => {
      const circle = make("circle", { cx: x[i], cy: y[i], r: 0.42, class: "try-base" });
      const mark = make("g", {}, circle, make("text", { x: x[i], y: y[i] + 0.2 }, base));
      if ((i + 1) % 10) return mark;
      const near = (inner[i] < 0 ? [i - 1, i + 1] : [inner[i]]).filter((j) => places[j]);
      const [dx, dy] = [x, y].map((of) => near.reduce((sum, j) => sum + of[i] - of[j], 0));
      const far = 1.2 / (Math.hypot(dx, dy) || 1), [nx, ny] = [x[i] + far * dx, y[i] + far * dy + 0.2];
      mark.append(make("text", { x: nx, y: ny, class: "try-number" }, i + 1));
      return mark;
    });
    const size = { viewBox: `${left} ${top} ${width} ${height}`, style: `width: ${(1.1 * width).toFixed(1)}rem` };
    const picture = make("svg", { ...size, role: "img", class: "try-drawing" },
      make("path", { d: `M${inner.map((_, i) => at(i)).join("L")}`, class: "try-backbone" }),
      make("path", { d: bonds, class: "try-bonds" }),
      make("path", { d: crossing.map(line).join(""), class: "try-knots" }), ...marks);
    const note = "Dashed: pairs that cross others (pseudoknots); they do not shape the drawing.";
    return [scrolling("drawn structure", picture), ...(crossing.length ? [make("p", {}, note)] : [])];
  }

  /** All values as a table, for the ear and for who wants numbers. */
  function table({ sequence: bases, values }) {
    const heads = ["position", "base", ...model.features.map(title)].map((name) => make("th", { scope: "col" }, name));
    const cells = (i) => values.map((of) => make("td", {}, Number.isNaN(of[i]) ? "–" : of[i].toFixed(3)));
    const row = (base, i) => make("tr", {}, make("th", { scope: "row" }, i + 1), make("td", {}, base), ...cells(i));
    const body = make("tbody", {}, ...Array.from(bases, row));
    const whole = make("table", { class: "sae-rna-table" }, make("thead", {}, make("tr", {}, ...heads)), body);
    const name = make("summary", {}, "All values as a table (shares of each feature's maximum)");
    return make("details", {}, name, scrolling("values of all features", whole));
  }

  /** Colours letters and drawing by one feature. */
  function colour(number) {
    const feature = model.features[number], values = shown.values[number];
    const name = `${title(feature)}${feature.certain ? "" : ", an uncertain name"}`;
    const words = `Coloured by ${name}. ${summary(feature, values)} The fuller the colour, the stronger.`;
    for (const picture of result.querySelectorAll(".try-letters, .try-drawing")) {
      picture.setAttribute("aria-label", `${picture.matches("svg") ? "Structure" : "Sequence"}. ${words}`);
      picture.querySelectorAll(".try-base").forEach((mark, i) => {
        mark.style.setProperty("--share", Math.min(values[i] || 0, 1).toFixed(3));
      });
    }
    result.querySelector(".try-legend").textContent = words;
  }

  function download() {
    const address = URL.createObjectURL(new Blob([TryRna.csv(model.features, shown)], { type: "text/csv" }));
    const name = shown.name.replace(/[^\w.-]+/g, "-").slice(0, 60) || "rna";
    make("a", { href: address, download: `${name}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  function draw() {
    const button = make("button", { type: "button" }, "Download the values (CSV)");
    button.addEventListener("click", download);
    const tracks = model.features.map((feature, number) => track(feature, shown.values[number], number));
    const scale = "Full height: the largest activation on the RNAs on which the feature was chosen. Above the dashed " +
      "line it counts as firing.";
    const heading = make("legend", {}, "Features, from the 5' to the 3' end: choose one to colour by");
    const choice = make("fieldset", {}, heading, make("p", {}, scale), ...tracks);
    const none = "Give a structure in dot-bracket notation to see it drawn.";
    const parts = shown.structure ? drawing(shown) : [make("p", {}, none)];
    result.replaceChildren(make("p", { class: "try-legend" }), letters(shown), ...parts, choice, button, table(shown));
    result.querySelector("input").checked = true;
    colour(0);
  }

  function readRna() {
    problem.textContent = said.textContent = "";
    for (const field of Object.values(fields)) {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
    try {
      model ??= TryRna.load(content);
      const rna = TryRna.parse(sequence.value, structure.value, model), began = performance.now();
      shown = { ...rna, values: TryRna.read(model, rna.sequence) };
      const seconds = ((performance.now() - began) / 1000).toFixed(2), length = rna.sequence.length;
      said.textContent = `${rna.name || "The RNA"}: ${length} nucleotides, read in ${seconds} s on this device.`;
      draw();
    } catch (error) {
      if (!error.field) throw error;
      problem.textContent = error.message;
      result.replaceChildren();
      fields[error.field].setAttribute("aria-invalid", "true");
      fields[error.field].setAttribute("aria-describedby", "try-problem");
      fields[error.field].focus();
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    readRna();
  });
  sequence.value = `>${content.example.name}\n${content.example.sequence}`;
  structure.value = content.example.structure ?? "";
  setTimeout(readRna); // once the page stands
})();
