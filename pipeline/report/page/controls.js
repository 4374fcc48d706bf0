// Filters, order, theme, keys; and the first drawing.
const STATES = Object.keys(data.states);
const view = { states: new Set(), job: "", tag: "", marked: "", text: "", sort: "order", group: "", size: 190 };

function matches(index, words) {
  if (view.states.size && !view.states.has(cell("state", index))) return false;
  if (view.job && cell("job", index) !== view.job) return false;
  if (view.tag && !cell("tags", index).includes(view.tag)) return false;
  if (view.marked && (markOf(index) || "none") !== view.marked) return false;
  return words.every((word) => hay(index).includes(word));
}

const collator = new Intl.Collator("en", { numeric: true });
const orders = {
  order: null,
  id: (a, b) => collator.compare(cell("id", a), cell("id", b)),
  price: (a, b) => cell("price", b) - cell("price", a) || a - b,
  time: (a, b) => (cell("time", b) ?? 0) - (cell("time", a) ?? 0) || a - b,
  slow: (a, b) => (cell("seconds", b) ?? -1) - (cell("seconds", a) ?? -1) || a - b,
};

function grouped(chosen) {
  if (!view.group) return [{ items: chosen }];
  const groups = new Map();
  for (const index of chosen) {
    const key = view.group === "job" ? cell("job", index) : groupKey(index);
    if (groups.has(key)) groups.get(key).push(index);
    else groups.set(key, [index]);
  }
  const sections = [];
  for (const [title, items] of groups) {
    if (view.group === "job") sections.push({ title, items, note: `${whole.format(items.length)}` });
    else if (items.length > 1) sections.push({ title, items, note: cell("prompt", items[0]) });
    else if (sections.length && !sections[sections.length - 1].title) sections[sections.length - 1].items.push(items[0]);
    else sections.push({ items });
  }
  return sections;
}

function refresh() {
  const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [];
  for (let index = 0; index < size; index++) if (matches(index, words)) chosen.push(index);
  if (orders[view.sort]) chosen.sort(orders[view.sort]);
  arrange(grouped(chosen), view.size);
  const sum = chosen.reduce((total, index) => total + cell("price", index), 0);
  const all = chosen.length === size ? whole.format(size) : `${whole.format(chosen.length)} of ${whole.format(size)}`;
  const rest = data.total > size ? ` (the page shows the first ${whole.format(size)} of ${whole.format(data.total)}; tasks.csv has all)` : "";
  $("count").textContent = `${all} ${size === 1 ? "task" : "tasks"} · ${money(sum)}${rest}`;
  $("empty").hidden = chosen.length > 0;
}

function fillTally() {
  $("tally").textContent = `${whole.format(marks.picked.size)} picked, ${whole.format(marks.rejected.size)} rejected`;
}

function mark(index, kind) {
  if (index < 0) return;
  toggleMark(index, kind);
  redress(index);
  fillTally();
  if (viewer.open) fillMark();
  else if (view.marked) refresh();
}

function clearFilters() {
  view.states.clear();
  Object.assign(view, { job: "", tag: "", marked: "", text: "" });
  for (const id of ["job", "tag", "marked", "search"]) $(id).value = "";
  for (const chip of $("states").children) chip.setAttribute("aria-pressed", "false");
  refresh();
}

function fillHeader() {
  $("subtitle").textContent = `${whole.format(data.total)} ${data.total === 1 ? "task" : "tasks"}${data.isPlayMoney ? " · a rehearsal with play money" : ""}`;
  $("written").textContent = `Written ${moment(data.written)}.`;
  const figures = [["Images", whole.format(data.states.done ?? 0)], ["Spent", money(data.spent)]];
  if (data.unknown) figures.push(["Maybe billed", money(data.unknown)]);
  if (data.attempts) figures.push(["Attempts", whole.format(data.attempts)]);
  if (data.states.done) figures.push(["Per image", money(Math.round(data.spent / data.states.done))]);
  $("figures").replaceChildren(...figures.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  $("spend").hidden = !$("spend").querySelector("svg");
}

function fillFilters() {
  for (const state of STATES) {
    const chip = element("button", { type: "button", class: `chip ${state}`, "aria-pressed": "false", "data-state": state },
      element("span", {}, state), element("b", {}, whole.format(data.states[state])));
    chip.addEventListener("click", () => {
      const isOn = !view.states.delete(state);
      if (isOn) view.states.add(state);
      chip.setAttribute("aria-pressed", String(isOn));
      refresh();
    });
    $("states").append(chip);
  }
  const jobs = new Set(), tags = new Set();
  for (let index = 0; index < size; index++) {
    jobs.add(cell("job", index));
    for (const tag of cell("tags", index)) tags.add(tag);
  }
  for (const [id, names] of [["job", jobs], ["tag", tags]]) {
    for (const name of [...names].sort(collator.compare)) $(id).append(element("option", { value: name }, name));
    $(id).closest("label").hidden = names.size < (id === "job" ? 2 : 1);
  }
}

function fillReasons() {
  const reasons = new Map();
  for (let index = 0; index < size; index++) {
    const state = cell("state", index);
    if (state === "done" || (state === "pending" && !cell("reason", index))) continue;
    const key = `${state}\n${cell("reason", index)}`;
    reasons.set(key, (reasons.get(key) ?? 0) + 1);
  }
  const most = [...reasons].sort((a, b) => b[1] - a[1]);
  const box = $("reasons");
  box.hidden = most.length === 0;
  const sum = most.reduce((total, [, count]) => total + count, 0);
  box.querySelector("summary").textContent = `${whole.format(sum)} without an image: why`;
  box.querySelector("ul").replaceChildren(...most.slice(0, 40).map(([key, count]) => {
    const [state, reason] = key.split("\n", 2);
    const button = element("button", { type: "button", class: "reason" }, element("b", { class: state }, state), element("span", {}, reason || "no reason kept"), element("i", {}, whole.format(count)));
    button.addEventListener("click", () => {
      clearFilters();
      view.states.add(state);
      document.querySelector(`.chip[data-state="${state}"]`).setAttribute("aria-pressed", "true");
      $("search").value = view.text = reason;
      refresh();
    });
    return element("li", {}, button);
  }));
}

const THEMES = ["auto", "light", "dark"];
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
  $("theme").setAttribute("aria-label", `Theme: ${theme}`);
  $("theme").title = `Theme: ${theme}`;
  remember("imgpipe:theme", theme);
}

function wire() {
  for (const id of ["job", "tag", "marked", "sort", "group"]) {
    $(id).addEventListener("change", () => { view[id] = $(id).value; refresh(); });
  }
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { view.text = $("search").value; refresh(); }, size > 2000 ? 120 : 0);
  });
  $("size").addEventListener("input", () => { view.size = Number($("size").value); remember("imgpipe:size", view.size); refresh(); });
  $("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]));
  $("help").addEventListener("click", () => $("keys").showModal());
  $("keys-close").addEventListener("click", () => $("keys").close());
  $("clear").addEventListener("click", clearFilters);
  $("pick").addEventListener("click", () => mark(viewed, "picked"));
  $("reject").addEventListener("click", () => mark(viewed, "rejected"));
  $("save").addEventListener("click", saveMarks);
  $("load").addEventListener("click", () => $("picksfile").click());
  $("picksfile").addEventListener("change", loadMarks);
  window.addEventListener("scroll", drawSoon, { passive: true });
  window.addEventListener("keydown", onKey);
  let wide = 0;
  new ResizeObserver(() => {
    if (sheet.clientWidth !== wide) { wide = sheet.clientWidth; refresh(); }
    else drawSoon();
  }).observe(sheet);
}

async function loadMarks() {
  const [file] = $("picksfile").files;
  $("picksfile").value = "";
  if (!file) return;
  try {
    takeMarks(JSON.parse(await file.text()));
    keepMarks();
    fillTally();
    refresh();
  } catch (error) {
    $("count").textContent = `${file.name} is not a picks file: ${error.message}`;
  }
}

const moves = {
  ArrowLeft: () => neighbour(-1),
  ArrowRight: () => neighbour(1),
  ArrowUp: () => beyond(-1),
  ArrowDown: () => beyond(1),
  Home: () => order[0],
  End: () => order[order.length - 1],
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const at = event.target;
  const isTyping = at.matches?.("input[type=search], select, textarea");
  if (isTyping) {
    if (event.key === "Escape" && at.id === "search") { at.blur(); if (at.value) clearFilters(); focusCurrent(); }
    return;
  }
  if (viewer.open ? viewerKey(event, at) : sheetKey(event, at)) event.preventDefault();
}

const keyOf = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);

function sheetKey(event, at) {
  const isOnControl = at.matches?.("button:not(.frame), a, summary, input");
  const key = keyOf(event);
  if (key === "?") { $("keys").showModal(); return true; }
  if (key === "/") { $("search").focus(); return true; }
  if (key === "Escape") { clearFilters(); return true; }
  if (isOnControl && (key === " " || key === "Enter" || at.type === "range")) return false;
  if (moves[key] && order.length) {
    setCurrent(at.closest?.(".tile") || !["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(key) ? moves[key]() : current);
    focusCurrent();
    return true;
  }
  if (key === "p" || key === "r") { mark(current, key === "p" ? "picked" : "rejected"); return true; }
  if ((key === " " || (key === "c" && siblings.get(groupKey(current))?.length > 1)) && current >= 0) {
    openViewer(current);
    if (key === "c") toggleCompare();
    return true;
  }
  return false;
}

function viewerKey(event, at) {
  const key = keyOf(event), isSlider = at.type === "range";
  if (key === " " && at.matches?.("button, a")) return false;
  if (key === " ") { closeViewer(); return true; }
  if ((key === "ArrowLeft" || key === "ArrowRight") && !isSlider) { stepViewer(key === "ArrowLeft" ? -1 : 1); return true; }
  if (key === "p" || key === "r") { mark(viewed, key === "p" ? "picked" : "rejected"); return true; }
  if (key === "c") { toggleCompare(); return true; }
  if (key === "z") { toggleTrueSize(); return true; }
  if (key === "?") { $("keys").showModal(); return true; }
  if (/^[1-9]$/.test(key)) {
    const other = siblings.get(groupKey(viewed))[Number(key) - 1];
    if (other !== undefined) goTo(other);
    return true;
  }
  return false;
}

setTheme(THEMES.includes(remembered("imgpipe:theme")) ? remembered("imgpipe:theme") : "auto");
view.size = Math.min(Math.max(Number(remembered("imgpipe:size")) || (window.innerWidth < 600 ? 120 : 190), 90), 320);
$("size").value = view.size;
fillHeader();
fillFilters();
fillReasons();
fillTally();
wire();
refresh();
document.documentElement.dataset.ready = "yes";
