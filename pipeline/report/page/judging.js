// Marking: one image or a range, with undo, and advancing to the next image without a mark.
const undoStack = [];       // what undo restores, newest last: [[index, patch]]
const MOST_UNDO = 500;
let selected = new Set(), anchor = -1;  // the selected range, and where it begins
let isAdvancing = (remembered("imgpipe:advance") ?? (isServed ? "yes" : "no")) === "yes";

const hasImage = (index) => cell("sha256", index) !== null;
const isUnmarked = (index) => hasImage(index) && !markOf(index).kind;

// The images that a key marks: the selected range, where there is one, else this one.
function targets(index) {
  if (!viewer.open && selected.size && selected.has(index)) return order.filter((each) => selected.has(each));
  return index < 0 ? [] : [index];
}

function change(indexes, patchOf) {
  const changes = indexes.map((index) => [index, patchOf(index)]);
  if (!changes.length) return;
  undoStack.push(changes.map(([index, patch]) => [index, Object.fromEntries(Object.keys(patch).map((name) => [name, markOf(index)[name]]))]));
  if (undoStack.length > MOST_UNDO) undoStack.shift();
  backend.write(changes);
  showMarks(indexes);
}

function mark(index, kind) {
  const indexes = targets(index);
  const isTakenBack = indexes.length > 0 && indexes.every((each) => markOf(each).kind === kind);
  change(indexes, () => ({ kind: isTakenBack ? "" : kind }));
  if (isAdvancing && !isTakenBack) advance(indexes[indexes.length - 1] ?? -1);
}

function rate(index, stars) {
  change(targets(index), (each) => ({ stars: markOf(each).stars === stars ? 0 : stars }));
}

function note(index, text) {
  if (markOf(index).note !== text) change([index], () => ({ note: text }));
}

function undo() {
  const changes = undoStack.pop();
  if (!changes) return;
  backend.write(changes);
  const indexes = changes.map(([index]) => index);
  showMarks(indexes);
  if (viewer.open) goTo(indexes[0]);
  else if (places.has(indexes[0])) { setCurrent(indexes[0]); focusCurrent(); }
}

// Go to the next image without a mark: after this one, else from the beginning.
function advance(from) {
  const at = places.get(from)?.position ?? -1;
  const next = order.slice(at + 1).find(isUnmarked) ?? order.slice(0, Math.max(at, 0)).find(isUnmarked);
  select([]);
  if (next === undefined) return;
  if (viewer.open) goTo(next);
  else { setCurrent(next); focusCurrent(); }
}

function select(indexes) {
  const before = selected;
  selected = new Set(indexes);
  if (!selected.size) anchor = -1;
  for (const index of new Set([...before, ...selected])) refreshTile(index);
  fillTally();
}

function selectTo(index) {
  if (anchor < 0 || !places.has(anchor)) anchor = places.has(current) ? current : index;
  const [from, to] = [places.get(anchor).position, places.get(index).position].sort((a, b) => a - b);
  select(order.slice(from, to + 1));
}

function showMarks(indexes) {
  for (const index of indexes) refreshTile(index);
  fillTally();
  if (viewer.open) { if (indexes.includes(viewed)) fillMark(); }
  else if (view.marked) refresh();
}

function fillTally() {
  const counts = { picked: 0, rejected: 0, "": 0 };
  let redo = 0, redoPrice = 0, isPriced = true;
  for (let index = 0; index < size; index++) {
    const { kind } = markOf(index);
    if (kind || hasImage(index)) counts[kind] += 1;
    if (kind !== "rejected" || !hasImage(index)) continue;
    redo += 1;
    redoPrice += cell("redo", index) ?? 0;
    isPriced &&= cell("redo", index) !== null;
  }
  const here = order.filter(isUnmarked).length;
  const left = `${whole.format(counts[""])} left${here < counts[""] ? ` (${whole.format(here)} here)` : ""}`;
  $("tally").textContent = `${whole.format(counts.picked)} picked, ${whole.format(counts.rejected)} rejected, ${left}`;
  $("selection").textContent = selected.size ? `${whole.format(selected.size)} selected` : "";
  $("undo").disabled = undoStack.length === 0;
  $("redo").hidden = redo === 0;
  $("redo").textContent = `Redo ${whole.format(redo)}: ${isPriced ? `about ${money(redoPrice)}` : "price unknown"}`;
}

const redoCommand = () => `imgpipe redo ${data.command} --rejected`;

// Nothing is bought from the page: it shows the price, and the command that buys.
async function showRedo() {
  $("redo-command").textContent = redoCommand();
  $("redo-price").textContent = $("redo").textContent;
  $("redo-dialog").showModal();
}

async function copyRedo() {
  try { await navigator.clipboard.writeText(redoCommand()); $("redo-copy").textContent = "Copied"; } catch { /* it can be selected */ }
}

function setAdvance(isOn) {
  isAdvancing = isOn;
  $("advance").setAttribute("aria-pressed", String(isOn));
  remember("imgpipe:advance", isOn ? "yes" : "no");
}

function showChangedMarks(ids) {
  const indexes = ids.map((id) => indexOf.get(id)).filter((index) => index !== undefined);
  if (indexes.length) showMarks(indexes);
}
