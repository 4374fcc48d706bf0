// One picture large: facts, variants, before and after, comparison.
const viewer = $("viewer"), picture = $("picture");
const AWAY = " · the original is not here, this is its thumbnail";
let viewed = -1, isComparing = false, isTrueSize = false;

function openViewer(index) {
  viewed = index;
  isComparing = isTrueSize = false;
  fillViewer();
  if (!viewer.open) viewer.showModal();
  $("stage").focus({ preventScroll: true });
}

function stepViewer(step) {
  const next = order.includes(viewed) ? neighbour(step) : order[0];
  if (next === undefined || next === viewed) return;
  setCurrent(next);
  viewed = next;
  isComparing = isTrueSize = false;
  fillViewer();
}

function goTo(index) {
  viewed = index;
  if (places.has(index)) setCurrent(index);
  isComparing = isTrueSize = false;
  fillViewer();
}

function fillViewer() {
  const index = viewed;
  $("viewer-title").textContent = cell("id", index);
  const position = places.get(index)?.position;
  $("place").textContent = position === undefined ? "" : `${whole.format(position + 1)} of ${whole.format(order.length)}`;
  $("prompt").textContent = cell("prompt", index);
  fillTrouble(index);
  fillMark();
  fillVariants(index);
  fillFacts(index);
  fillPicture(index);
}

function fillTrouble(index) {
  const state = cell("state", index), reason = cell("reason", index);
  const trouble = $("trouble");
  trouble.hidden = state === "done" && !reason;
  trouble.className = `trouble ${state}`;
  trouble.replaceChildren(element("b", {}, state), " ", reason ?? "");
}

function fillMark() {
  const mark = markOf(viewed);
  $("pick").setAttribute("aria-pressed", String(mark === "picked"));
  $("reject").setAttribute("aria-pressed", String(mark === "rejected"));
  viewer.dataset.mark = mark;
}

function fillPicture(index) {
  const source = cell("image", index), before = cell("before", index), family = siblings.get(groupKey(index));
  picture.className = `picture${isTrueSize ? " true-size" : ""}`;
  if (isComparing && family.length > 1) picture.replaceChildren(comparison(family));
  else if (source === null) picture.replaceChildren(before === null ? blank(index) : large(before, "Input image", { small: cell("small", index) }));
  else if (before !== null && !isTrueSize) picture.replaceChildren(slider(before, source, index));
  else picture.replaceChildren(image(source, index));
}

const image = (source, index) => large(source, cell("prompt", index), { small: cell("thumb", index), width: cell("width", index), height: cell("height", index) });

// A report that was sent without its images still has its thumbnails.
function large(source, alt, { small, width, height }) {
  const made = element("img", { src: source, alt: alt.slice(0, 300), draggable: "false" });
  if (width) Object.assign(made, { width, height });
  made.addEventListener("click", toggleTrueSize);
  insteadOf(made, small, () => made.replaceWith(element("span", { class: "blank failed" },
    element("b", {}, "Not found"), " ", element("span", {}, decodeURI(source)))));
  return made;
}

function insteadOf(made, small, otherwise) {
  made.addEventListener("error", () => {
    if (small === null || made.getAttribute("src") === small) { otherwise(); return; }
    made.src = small;
    if (!$("place").textContent.endsWith(AWAY)) $("place").textContent += AWAY;
  });
}

function slider(before, after, index) {
  const under = image(after, index), over = element("img", { src: before, alt: "Before", class: "over", draggable: "false" });
  under.removeEventListener("click", toggleTrueSize);
  insteadOf(over, cell("small", index), () => over.remove());
  const range = element("input", { type: "range", min: "0", max: "100", value: "50", step: "0.5", "aria-label": "Before and after", id: "slider" });
  const box = element("div", { class: "slider" }, under, over, element("i", { class: "handle", "aria-hidden": "true" }),
    element("span", { class: "tag left", "aria-hidden": "true" }, "before"), element("span", { class: "tag right", "aria-hidden": "true" }, "after"), range);
  box.style.aspectRatio = `${cell("width", index) ?? 1} / ${cell("height", index) ?? 1}`;
  box.style.setProperty("--ratio", String((cell("width", index) ?? 1) / (cell("height", index) ?? 1)));
  const move = () => {
    box.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${Math.round(range.value)} % before`);
  };
  range.addEventListener("input", move);
  move();
  return box;
}

function comparison(family) {
  const grid = element("div", { class: "compare" });
  grid.style.setProperty("--columns", String(Math.ceil(Math.sqrt(Math.min(family.length, 9)))));
  for (const index of family.slice(0, 9)) {
    const source = cell("image", index);
    const shown = source === null ? blank(index) : element("img", { src: source, alt: "" });
    if (source !== null) insteadOf(shown, cell("thumb", index), () => shown.replaceWith(blank(index, "Not found")));
    const button = element("button", { type: "button", class: markOf(index), "aria-label": label(index) }, shown, element("span", {}, shortId(index)));
    button.addEventListener("click", () => goTo(index));
    grid.append(button);
  }
  return grid;
}

function fillVariants(index) {
  const family = siblings.get(groupKey(index));
  $("variants-box").hidden = family.length < 2;
  $("variants").replaceChildren(...(family.length < 2 ? [] : family.slice(0, 60).map((other) => {
    const button = element("button", { type: "button", "aria-label": label(other), "aria-current": other === index ? "true" : null }, frame(other));
    button.addEventListener("click", () => goTo(other));
    return button;
  })));
}

function fillFacts(index) {
  const rows = [
    ["Model", cell("model", index)],
    ["Options", cell("matrix", index)],
    ["Tags", cell("tags", index).join(", ")],
    ["Size", cell("width", index) ? `${cell("width", index)} × ${cell("height", index)}` : ""],
    ["File", cell("bytes", index) ? `${bytes(cell("bytes", index))} · ${(cell("mime", index) ?? "").replace("image/", "")}` : ""],
    ["Signature", cell("signed", index) ? "C2PA; a conversion or an edit loses it" : ""],
    ["Price", cell("attempts", index) || cell("price", index) ? money(cell("price", index)) : ""],
    ["Attempts", String(cell("attempts", index) || "")],
    ["Took", cell("seconds", index) === null ? "" : `${cell("seconds", index)} s`],
    ["Made", cell("time", index) === null ? "" : moment(cell("time", index))],
    ["SHA-256", (cell("sha256", index) ?? "").slice(0, 16)],
    ["Fingerprint", cell("fingerprint", index)],
  ];
  $("facts").replaceChildren(...rows.filter(([, value]) => value).map(([name, value]) => {
    const text = element("dd", {}, value);
    return element("div", {}, element("dt", {}, name), text);
  }));
  const links = [];
  if (cell("image", index) !== null) links.push(element("a", { href: cell("image", index), target: "_blank", rel: "noopener" }, "Open the original"));
  if (cell("input", index) !== null) links.push(element("a", { href: cell("input", index), target: "_blank", rel: "noopener" }, "Open the input"));
  $("links").replaceChildren(...links);
}

function toggleTrueSize() {
  isTrueSize = !isTrueSize;
  fillPicture(viewed);
}

function toggleCompare() {
  isComparing = !isComparing && siblings.get(groupKey(viewed)).length > 1;
  fillPicture(viewed);
}

// A dialog that closes gives the focus back to where it was opened, and tells of it later: a key that is pressed in
// between would mark the wrong picture. So the focus is set at once.
function closeViewer() {
  const last = viewed;
  viewer.close();
  picture.replaceChildren();
  if (places.has(last)) setCurrent(last);
  focusCurrent();
}
viewer.addEventListener("cancel", (event) => { event.preventDefault(); closeViewer(); });
// After a press with a pointer the keys are the viewer's again; the keyboard's own focus stays where it is.
viewer.addEventListener("click", (event) => { if (event.detail && event.target.closest("button")) $("stage").focus({ preventScroll: true }); });
$("close").addEventListener("click", closeViewer);
$("prev").addEventListener("click", () => stepViewer(-1));
$("next").addEventListener("click", () => stepViewer(1));
