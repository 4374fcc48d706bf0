// The rows, by column, and how numbers are written. Text from prompts only ever becomes textContent.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);

function unpack(column) {
  if (Array.isArray(column)) return column;
  const { d, i } = column;
  return d.length > 1 ? i.map((place) => d[place]) : null;
}

const columns = {};
for (const [name, column] of Object.entries(data.columns)) {
  columns[name] = unpack(column) ?? { constant: column.d[0] };
}
const size = Array.isArray(columns.id) ? columns.id.length : data.columns.id.d.length;
function cell(name, index) {
  const column = columns[name];
  return Array.isArray(column) ? column[index] : column.constant;
}

const play = data.isPlayMoney ? "play " : "";
const dollars = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 4 });
const whole = new Intl.NumberFormat("en-US");
const money = (micro) => `${play}$${dollars.format(micro / 1e6)}`;
const bytes = (count) => (count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`);
const moment = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function aspect(index) {
  const width = cell("width", index), height = cell("height", index);
  return width && height ? Math.min(Math.max(width / height, 0.3), 4) : 1;
}

const shortId = (index) => cell("id", index).slice(cell("job", index).length + 1);
const groupKey = (index) => `${cell("job", index)}/${cell("row", index)}`;
const siblings = new Map();
for (let index = 0; index < size; index++) {
  const key = groupKey(index);
  const others = siblings.get(key);
  if (others) others.push(index);
  else siblings.set(key, [index]);
}

const hays = new Array(size);
function hay(index) {
  hays[index] ??= ["id", "prompt", "reason", "model", "matrix"].map((name) => cell(name, index)).concat(cell("tags", index))
    .join("\n").toLowerCase();
  return hays[index];
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

// Settings and marks outlive the page where the browser lets them.
const memory = new Map();
function remembered(key) {
  try { return localStorage.getItem(key); } catch { return memory.get(key) ?? null; }
}
function remember(key, value) {
  try { localStorage.setItem(key, value); } catch { memory.set(key, value); }
}
