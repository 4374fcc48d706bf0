// The contact sheet: only images near the window exist as elements; the one with the focus always does. On paper all do.
const sheet = $("sheet");
let order = [];          // indexes of the rows that are shown, in order
let places = new Map();  // index -> {position, line}
let plan = { lines: [], height: 0 };
let current = -1;        // index of the image with the keyboard's focus
const tiles = new Map(); // index or "h" + line -> element

const SVG = "http://www.w3.org/2000/svg";
function drawnMark(kind) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", `drawn-mark ${kind}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", kind === "picked"
    ? "M3 5C30 2.5 70 4.5 97 3C98.5 30 96.5 70 98 96C70 98.500 30 96.500 3.500 97.500C2 70 4 30 2.500 2"
    : "M6 8C30 32 66 64 95 93M94 6C66 36 34 62 5 95");
  svg.append(path);
  return svg;
}

function label(index) {
  const { kind, stars, note } = markOf(index);
  const parts = [cell("id", index), cell("state", index)];
  if (cell("reason", index)) parts.push(cell("reason", index));
  if (cell("price", index)) parts.push(money(cell("price", index)));
  if (hasBefore(index)) parts.push("has a before image");
  if (stars) parts.push(`${stars} ${stars === 1 ? "star" : "stars"}`);
  if (note) parts.push("has a note");
  if (selected.has(index)) parts.push("selected");
  if (kind) parts.push(kind);
  return parts.join(", ");
}

// A task without an image shows its input image, where it has one, and its state.
function frame(index) {
  const source = cell("thumb", index) ?? cell("image", index), input = cell("small", index) ?? cell("before", index);
  if (source === null && cell("state", index) === "pending" && input !== null) return pendingInput(index, input);
  if (source === null) return blank(index);
  const image = imageElement(source), original = cell("image", index);
  image.addEventListener("error", () => {  // of thumbnails, too, where a web server has no WebP
    if (original === null || image.getAttribute("src") === original) image.replaceWith(blank(index, "This image cannot be shown"));
    else image.src = original;
  });
  return image;
}

const imageElement = (source) => element("img", { src: source, alt: "", loading: "lazy", decoding: "async", draggable: "false" });

function pendingInput(index, input) {
  const image = imageElement(input), box = element("span", { class: "awaiting" }, image, element("b", {}, cell("state", index)));
  image.addEventListener("error", () => box.replaceWith(blank(index)), { once: true });
  return box;
}

function blank(index, text) {
  const state = cell("state", index);
  return element("span", { class: `blank ${state}` },
    element("b", {}, state), " ", element("span", {}, text ?? cell("reason", index) ?? ""));
}

// Ids differ mostly at their end: where space is short, the middle is cut.
const TAIL = 14;
function idLabel(text) {
  const at = text.length > TAIL * 1.5 ? text.length - TAIL : text.length;
  return element("span", { class: "id" }, element("span", {}, text.slice(0, at)), element("span", {}, text.slice(at)));
}

function makeTile(index) {
  const button = element("button", { type: "button", class: "frame", tabindex: index === current ? "0" : "-1" }, frame(index));
  const tile = element("article", { class: "tile" }, button,
    element("span", { class: "caption", "aria-hidden": "true", title: cell("id", index) }, idLabel(shortId(index)),
      element("span", { class: "stars" }), element("span", { class: "cost" }, cell("price", index) ? money(cell("price", index)) : "")));
  if (hasBefore(index)) button.append(element("i", { class: "badge before", title: "Has a before image", "aria-hidden": "true" }));
  if (cell("state", index) === "done" && cell("reason", index)) {
    button.append(element("i", { class: "badge doubt", title: cell("reason", index), "aria-hidden": "true" }, "!"));
  }
  button.addEventListener("mousedown", (event) => { if (event.shiftKey) event.preventDefault(); });  // keep the focus where the range begins
  button.addEventListener("click", (event) => {
    if (event.shiftKey) selectTo(index);
    setCurrent(index);
    if (event.shiftKey) { focusCurrent(); return; }
    select([]);
    openViewer(index);
  });
  button.addEventListener("focus", () => { if (current !== index) setCurrent(index, false); });
  updateTile(tile, index);
  return tile;
}

function updateTile(tile, index) {
  const { kind, stars, note } = markOf(index), button = tile.firstChild;
  tile.classList.toggle("picked", kind === "picked");
  tile.classList.toggle("rejected", kind === "rejected");
  tile.classList.toggle("selected", selected.has(index));
  button.querySelector(".drawn-mark")?.remove();
  if (kind) button.append(drawnMark(kind));
  tile.querySelector(".stars").textContent = `${"★".repeat(stars)}${note ? " ✎" : ""}`;
  button.setAttribute("aria-label", label(index));
}

function makeHeader(section) {
  return element("h2", { class: "group" }, element("span", {}, section.title), element("small", {}, section.note ?? ""));
}

let isPrinting = false;
function wantedLines() {
  if (isPrinting) return plan.lines.map((_, at) => at);
  const top = window.scrollY - sheet.offsetTop, high = window.innerHeight;
  const from = lineAt(plan.lines, top - high * 0.75);
  const chosen = [];
  for (let at = from; at < plan.lines.length && plan.lines[at].y < top + high * 1.75; at++) chosen.push(at);
  if (places.has(current)) {
    const line = places.get(current).line;
    if (!chosen.includes(line)) chosen.push(line);
  }
  return chosen;
}

function draw() {
  const kept = new Set();
  for (const at of wantedLines()) {
    const line = plan.lines[at];
    if (line.header) {
      const key = `h${at}`;
      kept.add(key);
      if (!tiles.has(key)) show(key, makeHeader(line.header), 0, line.y, null, null);
      continue;
    }
    for (const { index, x, width, height } of line.tiles) {
      kept.add(index);
      if (tiles.has(index)) continue;
      const tile = makeTile(index);
      tile.setAttribute("aria-posinset", places.get(index).position + 1);
      tile.setAttribute("aria-setsize", order.length);
      show(index, tile, x, line.y, width, height);
    }
  }
  for (const [key, tile] of tiles) {
    if (kept.has(key)) continue;
    tile.remove();
    tiles.delete(key);
  }
}

function show(key, made, x, y, width, height) {
  made.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
  if (width !== null) {
    made.style.width = `${width.toFixed(1)}px`;
    made.firstChild.style.height = `${height.toFixed(1)}px`;
  }
  tiles.set(key, made);
  sheet.append(made);
}

function redraw() {
  for (const tile of tiles.values()) tile.remove();
  tiles.clear();
  draw();
}

let isDrawing = false;
function drawSoon() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => { isDrawing = false; draw(); });
}

function arrange(sections, wanted) {
  const hadFocus = sheet.contains(document.activeElement);
  order = sections.flatMap((section) => section.items);
  plan = place(sections, sheet.clientWidth, wanted);
  places = new Map();
  let position = 0;
  plan.lines.forEach((line, at) => line.tiles?.forEach(({ index }) => places.set(index, { position: position++, line: at })));
  sheet.style.height = `${plan.height}px`;
  if (!places.has(current)) current = order[0] ?? -1;
  redraw();
  if (hadFocus) focusCurrent();
}

function setCurrent(index, isScrolled = true) {
  const before = tiles.get(current);
  if (before) before.firstChild.tabIndex = -1;
  current = index;
  if (isScrolled) reveal(index);
  draw();
  const tile = tiles.get(index);
  if (tile) tile.firstChild.tabIndex = 0;
}

function focusCurrent() {
  tiles.get(current)?.firstChild.focus({ preventScroll: true });
}

function reveal(index) {
  const spot = places.get(index);
  if (!spot) return;
  const line = plan.lines[spot.line], margin = 16, bar = $("topbar").offsetHeight;
  const top = line.y + sheet.offsetTop, bottom = top + line.height;
  if (top < window.scrollY + bar + margin) window.scrollTo(0, top - bar - margin);
  else if (bottom > window.scrollY + window.innerHeight - margin) window.scrollTo(0, bottom - window.innerHeight + margin);
}

// The image `step` positions on, or the nearest one in the line above (-1) or below (+1).
function neighbour(step) {
  const spot = places.get(current);
  return spot ? order[Math.min(Math.max(spot.position + step, 0), order.length - 1)] : order[0];
}
function inNextLine(direction) {
  const spot = places.get(current);
  if (!spot) return order[0];
  const own = plan.lines[spot.line].tiles.find((tile) => tile.index === current);
  const middle = own.x + own.width / 2;
  let at = spot.line + direction;
  while (plan.lines[at] && !plan.lines[at].tiles) at += direction;
  const line = plan.lines[at];
  if (!line) return current;
  const distance = (tile) => Math.abs(tile.x + tile.width / 2 - middle);
  return line.tiles.reduce((best, tile) => (distance(tile) < distance(best) ? tile : best)).index;
}

function refreshTile(index) {
  const tile = tiles.get(index);
  if (tile) updateTile(tile, index);
}

for (const name of ["beforeprint", "afterprint"]) {
  window.addEventListener(name, () => { isPrinting = name === "beforeprint"; redraw(); });
}
