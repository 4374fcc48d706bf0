// Groups of the sheet, and families: the images that are compared with each other.
// A grouping: {key(index) -> text or null, title(key), isFamily, isSmall: groups of one get no heading,
// labelOf(index): what distinguishes an image in its family}.
const rowKey = (index) => `${cell("job", index)}/${cell("row", index)}`;
const same = (text) => text;

const groupings = new Map([
  ["job", { key: (index) => cell("job", index), title: same }],
  ["row", { key: rowKey, title: same, isFamily: true, isSmall: true }],
  ["folder", { key: (index) => cell("folder", index), title: (key) => key || "no folder" }],
  ["tag", { key: (index) => cell("tags", index)[0] ?? null, title: same, isFamily: true }],
]);
const sideBySide = new Map([["row", "Variants of a row"]]), sections = new Map([["job", "By job"]]);

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

// The id of a row without its value of one axis: `cup-dawn` and `cup-dusk` are both `cup`.
function without(axis, index) {
  const value = valueOf(axes[axis], index), row = cell("row", index);
  if (value === null) return row;
  const found = [...row.matchAll(new RegExp(`(?<![\\p{L}\\p{N}])${escaped(value)}(?![\\p{L}\\p{N}])`, "gu"))].pop();
  if (!found) return row;
  const before = row.slice(0, found.index), after = row.slice(found.index + value.length);
  return before ? before.replace(/[-_ .]$/, "") + after : after.replace(/^[-_ .]/, "");
}

function acrossAxis(axis) {
  const rest = Object.keys(axes).filter((name) => name !== axis);
  const key = (index) => [cell("job", index), without(axis, index), cell("variant", index),
    ...rest.map((name) => valueOf(axes[name], index) ?? "")].join("\n");
  const title = (text) => {
    const [job, row, variant] = text.split("\n");
    return `${job}/${row}${variant === "1" ? "" : `@${variant}`}`;
  };
  return { key, title, isFamily: true, isSmall: true, labelOf: (index) => valueOf(axes[axis], index) };
}

// Fields worth grouping by: not the same in all rows, not different in each; of fields that make the same groups (a name
// and its path) the shortest.
function groupingFields() {
  const found = new Map();
  for (const [name, column] of Object.entries(fields)) {
    const numbers = new Map(), parts = [];
    let sum = 0, filled = 0;
    for (let index = 0; index < size; index++) {
      const value = valueOf(column, index);
      if (!numbers.has(value)) numbers.set(value, numbers.size);
      parts.push(numbers.get(value));
      filled += value === null ? 0 : 1;
      sum += value?.length ?? 0;
    }
    numbers.delete(null);
    const key = parts.join();
    if (numbers.size < 2 || numbers.size > filled / 2 || found.get(key)?.sum <= sum) continue;
    found.set(key, { name, column, sum });
  }
  return [...found.values()].map(({ name, column }) => [name, column]);
}

function addGroupings() {
  for (const axis of Object.keys(axes)) {
    groupings.set(`beside:${axis}`, acrossAxis(axis));
    groupings.set(`axis:${axis}`, { key: (index) => valueOf(axes[axis], index), title: same });
    sideBySide.set(`beside:${axis}`, `Compare ${axis}`);
    sections.set(`axis:${axis}`, `By ${axis}`);
  }
  for (const [name, column] of groupingFields()) {
    groupings.set(`field:${name}`, { key: (index) => valueOf(column, index), title: (key) => key || "(empty)", isFamily: true });
    sideBySide.set(`field:${name}`, `Same ${name}`);
  }
  const differ = (column) => Array.isArray(columns[column]);
  if (differ("folder")) sections.set("folder", "By folder");
  if (differ("tags")) sections.set("tag", "By tag");
}
addGroupings();

function fillGroups() {
  for (const [label, options] of [["Side by side", sideBySide], ["Sections", sections]]) {
    $("group").append(element("optgroup", { label }, ...[...options].map(([value, text]) => element("option", { value }, text))));
  }
}

// Families follow the chosen grouping; where it makes none, the variants of a row are one.
let families = new Map(), familyKey = rowKey, familyLabel = null;
function chooseFamilies(name) {
  const grouping = groupings.get(name)?.isFamily ? groupings.get(name) : groupings.get("row");
  familyKey = (index) => grouping.key(index) ?? `\n${index}`;
  familyLabel = grouping.labelOf ?? null;
  families = Map.groupBy(Array(size).keys(), familyKey);
}
chooseFamilies("row");
const familyOf = (index) => families.get(familyKey(index)) ?? [index];

function cut(chosen, name) {
  const grouping = groupings.get(name);
  if (!grouping) return [{ items: chosen }];
  const cuts = [], rest = [];
  for (const [key, items] of Map.groupBy(chosen, grouping.key)) {
    if (key === null || (grouping.isSmall && items.length < 2)) rest.push(...items);
    else cuts.push({ title: grouping.title(key), items, note: grouping.isSmall ? cell("prompt", items[0]) : whole.format(items.length) });
  }
  if (rest.length) cuts.push(cuts.length ? { title: "Others", items: rest, note: whole.format(rest.length) } : { items: rest });
  return cuts;
}
