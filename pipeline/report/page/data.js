// The rows, by column, and how numbers are written. Text from prompts only ever becomes textContent.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const isServed = Boolean(data.judge);  // served by `imgpipe judge`; otherwise a file

function unpack(column) {
  if (Array.isArray(column)) return column;
  const { d, i } = column;
  return d.length > 1 ? i.map((place) => d[place]) : { constant: d[0] };
}
const unpacked = (packed) => Object.fromEntries(Object.entries(packed).map(([name, column]) => [name, unpack(column)]));
const valueOf = (column, index) => (Array.isArray(column) ? column[index] : column.constant);

const columns = unpacked(data.columns), axes = unpacked(data.axes), fields = unpacked(data.fields);
const size = Array.isArray(columns.id) ? columns.id.length : data.columns.id.d.length;
const cell = (name, index) => valueOf(columns[name], index);

const indexOf = new Map();
for (let index = 0; index < size; index++) indexOf.set(cell("id", index), index);

const play = data.isPlayMoney ? "play " : "";
const dollars = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 4 });
const whole = new Intl.NumberFormat("en-US");
const money = (micro) => `${play}$${dollars.format(micro / 1e6)}`;
const bytes = (count) => (count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`);
const moment = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const collator = new Intl.Collator("en", { numeric: true });

function aspect(index) {
  const width = cell("width", index), height = cell("height", index);
  return width && height ? Math.min(Math.max(width / height, 0.3), 4) : 1;
}

const shortId = (index) => cell("id", index).slice(cell("job", index).length + 1);
const isFlagged = (index) => cell("flags", index).length > 0;
const hasBefore = (index) => cell("image", index) !== null && (cell("before", index) !== null || cell("versions", index).length > 0);

// "axis: value" of each cell that a row has.
function pairs(mapping, index) {
  const found = [];
  for (const [name, column] of Object.entries(mapping)) {
    const value = valueOf(column, index);
    if (value !== null && value !== "") found.push([name, value]);
  }
  return found;
}

const searchTexts = new Array(size);
function searchText(index) {
  searchTexts[index] ??= ["id", "prompt", "reason", "model", "folder"].map((name) => cell(name, index))
    .concat(cell("tags", index), [...pairs(axes, index), ...pairs(fields, index)].map(([, value]) => value))
    .join("\n").toLowerCase();
  return searchTexts[index];
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Settings and marks are kept in localStorage; where the browser forbids that, until the page is closed.
const memory = new Map();
function remembered(key) {
  try { return localStorage.getItem(key); } catch { return memory.get(key) ?? null; }
}
function remember(key, value) {  // returns whether it outlives the page
  try { localStorage.setItem(key, value); return true; } catch { memory.set(key, value); return false; }
}
