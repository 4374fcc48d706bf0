// What a person picked and rejected: kept in the browser, saved to picks.json, loaded from it.
const marksKey = `imgpipe:marks:${data.key}`;
const marks = { picked: new Set(), rejected: new Set() };
const seen = new Map();  // id -> hash of the image that stands there now: a mark is for an image, not for its name
for (let index = 0; index < size; index++) if (cell("sha256", index)) seen.set(cell("id", index), cell("sha256", index));

function takeMarks(found) {
  for (const kind of ["picked", "rejected"]) {
    if (!Array.isArray(found?.[kind] ?? [])) throw new Error(`"${kind}" is not a list`);
  }
  const images = found?.images ?? {};
  const isSame = (id) => typeof images[id] !== "string" || !seen.has(id) || images[id] === seen.get(id);
  const isMine = (id) => typeof id === "string" && isSame(id);
  marks.picked = new Set((found.picked ?? []).filter(isMine));
  marks.rejected = new Set((found.rejected ?? []).filter((id) => isMine(id) && !marks.picked.has(id)));
}

try { takeMarks(JSON.parse(remembered(marksKey) ?? "{}")); } catch { /* what was kept is not ours: start afresh */ }

function marksText() {
  const picked = [...marks.picked], rejected = [...marks.rejected], images = {};
  for (const id of [...picked, ...rejected]) if (seen.has(id)) images[id] = seen.get(id);
  return JSON.stringify({ picked, rejected, images }, null, 1) + "\n";
}
const keepMarks = () => remember(marksKey, marksText());

function markOf(index) {
  const id = cell("id", index);
  return marks.picked.has(id) ? "picked" : marks.rejected.has(id) ? "rejected" : "";
}

function toggleMark(index, kind) {
  const id = cell("id", index), had = marks[kind].has(id);
  marks.picked.delete(id);
  marks.rejected.delete(id);
  if (!had) marks[kind].add(id);
  keepMarks();
}

async function saveMarks() {
  const text = marksText();
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
