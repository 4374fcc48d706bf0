// Filters, order, theme, keys; and the first drawing of the page.
const STATES = Object.keys(data.states);
const view = { states: new Set(), job: "", tag: "", marked: "", text: "", sort: "order", group: "", size: 190 };

function matches(index, words) {
  if (view.states.size && !view.states.has(cell("state", index))) return false;
  if (view.job && cell("job", index) !== view.job) return false;
  if (view.tag && !cell("tags", index).includes(view.tag)) return false;
  if (view.marked && !MARKED[view.marked](index)) return false;
  return words.every((word) => searchText(index).includes(word));
}

const MARKED = {
  picked: (index) => markOf(index).kind === "picked",
  rejected: (index) => markOf(index).kind === "rejected",
  none: (index) => !markOf(index).kind,
  noted: (index) => markOf(index).note !== "",
  flagged: isFlagged,
  ...Object.fromEntries([1, 2, 3, 4, 5].map((least) => [`stars${least}`, (index) => markOf(index).stars >= least])),
};

const orders = {
  order: null,
  id: (a, b) => collator.compare(cell("id", a), cell("id", b)),
  price: (a, b) => cell("price", b) - cell("price", a) || a - b,
  time: (a, b) => (cell("time", b) ?? 0) - (cell("time", a) ?? 0) || a - b,
  flagged: (a, b) => isFlagged(b) - isFlagged(a) || a - b,
  stars: (a, b) => markOf(b).stars - markOf(a).stars || a - b,
  slow: (a, b) => (cell("seconds", b) ?? -1) - (cell("seconds", a) ?? -1) || a - b,
};

function refresh() {
  const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [];
  for (let index = 0; index < size; index++) if (matches(index, words)) chosen.push(index);
  if (orders[view.sort]) chosen.sort(orders[view.sort]);
  arrange(cut(chosen, view.group), view.size);
  const sum = chosen.reduce((total, index) => total + cell("price", index), 0);
  const all = chosen.length === size ? whole.format(size) : `${whole.format(chosen.length)} of ${whole.format(size)}`;
  const rest = data.total > size ? ` (the page shows the first ${whole.format(size)} of ${whole.format(data.total)}${isServed ? "" : "; tasks.csv has all"})` : "";
  $("count").textContent = `${all} ${size === 1 ? "task" : "tasks"} · ${money(sum)}${rest}`;
  $("empty").hidden = chosen.length > 0;
  if (selected.size) select([...selected].filter((index) => places.has(index)));
  else fillTally();
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
  let shown = 0, images = 0;
  for (let index = 0; index < size; index++) { shown += cell("price", index); images += hasImage(index) ? 1 : 0; }
  const figures = [["Images", whole.format(data.states.done ?? 0)], ["Spent", money(data.spent)]];
  if (data.spent !== shown) figures.push(["Of which these tasks", money(shown)]);
  if (data.unknown) figures.push(["Maybe billed", money(data.unknown)]);
  if (data.attempts) figures.push(["Attempts", whole.format(data.attempts)]);
  if (images) figures.push(["Per image", money(Math.round(shown / images))]);
  $("figures").replaceChildren(...figures.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
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
  box.querySelector("summary").textContent = `${whole.format(sum)} without an image: reasons`;
  box.querySelector("ul").replaceChildren(...most.slice(0, 40).map(([key, count]) => {
    const [state, reason] = key.split("\n", 2);
    const button = element("button", { type: "button", class: "reason" }, element("b", { class: state }, state), element("span", {}, reason || "no reason recorded"), element("i", {}, whole.format(count)));
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

// Flagged images come first when the page is for judging.
function fillFlagged() {
  let flagged = 0;
  for (let index = 0; index < size; index++) flagged += isFlagged(index);
  for (const [id, place] of [["marked", "flagged"], ["sort", "flagged"]]) $(id).querySelector(`[value=${place}]`).hidden = !flagged;
  if (isServed && flagged) $("sort").value = view.sort = "flagged";
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
    $(id).addEventListener("change", () => {
      view[id] = $(id).value;
      if (id === "group") chooseFamilies(view.group);
      refresh();
    });
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
  $("undo").addEventListener("click", undo);
  $("advance").addEventListener("click", () => setAdvance(!isAdvancing));
  $("redo").addEventListener("click", showRedo);
  $("redo-copy").addEventListener("click", copyRedo);
  $("redo-close").addEventListener("click", () => $("redo-dialog").close());
  $("reload").addEventListener("click", () => location.reload());
  for (let stars = 1; stars <= 5; stars++) {
    const button = element("button", { type: "button", "aria-label": `${stars} ${stars === 1 ? "star" : "stars"}`, "aria-pressed": "false" }, "☆");
    button.addEventListener("click", () => rate(viewed, stars));
    $("stars").append(button);
  }
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
    showChangedMarks(backend.merge(fromPicks(JSON.parse(await file.text()), file.lastModified)));
    refresh();
  } catch (error) {
    $("count").textContent = `${file.name} is not a picks file: ${error.message}`;
  }
}

const moves = {
  ArrowLeft: () => neighbour(-1),
  ArrowRight: () => neighbour(1),
  ArrowUp: () => inNextLine(-1),
  ArrowDown: () => inNextLine(1),
  Home: () => order[0],
  End: () => order[order.length - 1],
};

function onKey(event) {
  const at = event.target, isDialog = $("keys").open || $("redo-dialog").open;
  const isTyping = at.matches?.("input[type=search], select, textarea");
  if ((event.ctrlKey || event.metaKey) && keyOf(event) === "z" && !event.shiftKey && !isTyping && !isDialog) {
    undo();
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isDialog) return;
  if (isTyping) {
    if (event.key === "Escape" && at.id === "search") { at.blur(); if (at.value) clearFilters(); focusCurrent(); }
    if (event.key === "Escape" && at.id === "note") { keepNote(); $("stage").focus({ preventScroll: true }); event.preventDefault(); }
    return;
  }
  const isHeld = event.repeat && event.key.length === 1;  // a key that is held moves, but marks once
  if (isHeld || (viewer.open ? viewerKey(event, at) : sheetKey(event, at))) event.preventDefault();
}

// Keys that mark: the same on the sheet and in the viewer.
function markKey(key, index) {
  if (key === "p" || key === "r") mark(index, key === "p" ? "picked" : "rejected");
  else if (/^[0-5]$/.test(key)) rate(index, Number(key));
  else if (key === "u") undo();
  else return false;
  return true;
}

// A key is what it prints. Where that is no Latin letter or no digit, its place tells: з is P in Russian, & is 1 in French.
function keyOf({ key, code, shiftKey }) {
  const place = /^(?:Key([A-Z])|Digit([0-5]))$/.exec(code);
  if (place && key.length === 1 && (key > "\x7f" || (place[2] && !shiftKey))) return (place[1] ?? place[2]).toLowerCase();
  return key.length === 1 ? key.toLowerCase() : key;
}

function sheetKey(event, at) {
  const isOnControl = at.matches?.("button:not(.frame), a, summary, input");
  const key = keyOf(event);
  if (key === "?") { $("keys").showModal(); return true; }
  if (key === "/") { $("search").focus(); return true; }
  if (key === "Escape") { if (selected.size) select([]); else clearFilters(); return true; }
  if (isOnControl && (key === " " || key === "Enter" || at.type === "range")) return false;
  if (moves[key] && order.length) {
    if (event.shiftKey) { if (anchor < 0 || !selected.size) anchor = current; } else select([]);
    setCurrent(at.closest?.(".tile") || !["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(key) ? moves[key]() : current);
    if (event.shiftKey) selectTo(current);
    focusCurrent();
    return true;
  }
  if (markKey(key, current)) return true;
  if ((key === " " || (key === "c" && current >= 0 && familyOf(current).length > 1)) && current >= 0) {
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
  if (markKey(key, viewed)) return true;
  if (key === "n") { $("note").focus(); return true; }
  if (key === "v" && befores(viewed).length > 1) { beforeAt = (beforeAt + 1) % befores(viewed).length; fillPicture(viewed); return true; }
  if (key === "[" || key === "]") {
    const family = familyOf(viewed), other = family[family.indexOf(viewed) + (key === "[" ? -1 : 1)];
    if (other !== undefined) goTo(other);
    return true;
  }
  if (key === "c") { toggleCompare(); return true; }
  if (key === "z") { toggleTrueSize(); return true; }
  if (key === "?") { $("keys").showModal(); return true; }
  return false;
}

setTheme(THEMES.includes(remembered("imgpipe:theme")) ? remembered("imgpipe:theme") : "auto");
view.size = Math.min(Math.max(Number(remembered("imgpipe:size")) || (window.innerWidth < 600 ? 120 : 190), 90), 320);
$("size").value = view.size;
fillHeader();
fillFilters();
fillGroups();
fillReasons();
fillFlagged();
setAdvance(isAdvancing);
for (const id of ["save", "load", "tables"]) $(id).hidden = isServed;  // marks are saved at once, and no table is served
wire();
backend.start(showChangedMarks);
refresh();
document.documentElement.dataset.ready = "yes";
