// Marks of images: id -> {kind, stars, note, sha256, at}. A mark belongs to an image, not to its name; of two marks of
// one task the later one counts, so that those of windows, files and the ledger can be merged in any order.
const NO_MARK = Object.freeze({ kind: "", stars: 0, note: "", sha256: "", at: 0 });
const KINDS = ["picked", "rejected"];
const marks = new Map(Object.entries(data.marks));

// A redo makes a new image without a mark, even when it has the same bytes.
const madeAt = (index) => (cell("time", index) ?? 0) * 1000;
const isOf = (mark, index) => (mark.sha256 === "" || mark.sha256 === (cell("sha256", index) ?? "")) && mark.at >= madeAt(index);
function markOf(index) {
  const mark = marks.get(cell("id", index));
  return mark && isOf(mark, index) ? mark : NO_MARK;
}

// Merge marks, the later one of a task counts; returns the ids that changed. A mark of an earlier image never replaces
// one of the present image.
function takeMarks(found) {
  const changed = [];
  for (const [id, mark] of found) {
    const there = marks.get(id), index = indexOf.get(id);
    if (there && there.at > mark.at) continue;
    if (index !== undefined && !isOf(mark, index) && there && isOf(there, index)) continue;
    marks.set(id, mark);
    changed.push(id);
  }
  return changed;
}

// Return the present mark of an image with some fields changed.
function patched(index, patch) {
  const sha256 = cell("sha256", index) ?? "", before = marks.get(cell("id", index))?.at ?? 0;
  return { ...markOf(index), ...patch, sha256, at: Math.max(Date.now(), madeAt(index), before + 1) };  // a clock may be slow
}

function fromPicks(found, savedAt) {
  if (found === null || typeof found !== "object" || Array.isArray(found)) throw new Error("not a JSON object");
  const kinds = new Map();
  for (const kind of KINDS) {
    if (!Array.isArray(found[kind] ?? [])) throw new Error(`"${kind}" is not a list`);
    for (const id of found[kind] ?? []) if (typeof id === "string" && !kinds.has(id)) kinds.set(id, kind);
  }
  const of = (name) => new Map(Object.entries(found[name] ?? {}));
  const images = of("images"), stars = of("stars"), notes = of("notes"), at = of("at");
  const ids = new Set([...kinds.keys(), ...stars.keys(), ...notes.keys(), ...at.keys()]);
  return new Map([...ids].map((id) => [id, {
    kind: kinds.get(id) ?? "",
    stars: Math.min(Math.max(Math.round(Number(stars.get(id))) || 0, 0), 5),
    note: String(notes.get(id) ?? "").slice(0, 4000),
    sha256: typeof images.get(id) === "string" ? images.get(id) : "",
    at: Number(at.get(id)) || savedAt,
  }]));
}

function toPicks(found) {
  const picks = { picked: [], rejected: [], images: {}, stars: {}, notes: {}, at: {} };
  for (const [id, mark] of found) {
    if (mark.kind) picks[mark.kind].push(id);
    if (mark.sha256) picks.images[id] = mark.sha256;
    if (mark.stars) picks.stars[id] = mark.stars;
    if (mark.note) picks.notes[id] = mark.note;
    picks.at[id] = mark.at;
  }
  return JSON.stringify(picks, null, 1) + "\n";
}

async function saveMarks() {
  const text = toPicks(marks);
  if (window.showSaveFilePicker) {
    try {
      const handle = await window.showSaveFilePicker({
        suggestedName: "picks.json", types: [{ accept: { "application/json": [".json"] } }],
      });
      const file = await handle.createWritable();
      await file.write(text);
      await file.close();
      return;
    } catch (error) {
      if (error.name === "AbortError") return;  // the person closed the dialog; anything else: download instead
    }
  }
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "picks.json" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
