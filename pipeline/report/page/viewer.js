// One image large: facts, variants, before and after, comparison.
const viewer = $("viewer"), picture = $("picture");
const THUMBNAIL_ONLY = " · original not found, this is its thumbnail";
let viewed = -1, isComparing = false, isTrueSize = false;
let beforeAt = 0;  // which before image the slider shows: 0 the newest (the input, where there is one), 1 the one before that

function openViewer(index) {
  viewed = index;
  isComparing = isTrueSize = false;
  beforeAt = 0;
  fillViewer();
  if (!viewer.open) viewer.showModal();
  $("stage").focus({ preventScroll: true });
}

function stepViewer(step) {
  const next = order.includes(viewed) ? neighbour(step) : order[0];
  if (next === undefined || next === viewed) return;
  goTo(next);
}

function goTo(index) {
  keepNote();
  viewed = index;
  beforeAt = 0;
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
  const { kind, stars, note: text } = markOf(viewed);
  $("pick").setAttribute("aria-pressed", String(kind === "picked"));
  $("reject").setAttribute("aria-pressed", String(kind === "rejected"));
  viewer.dataset.mark = kind;
  [...$("stars").children].forEach((star, at) => {
    star.textContent = at < stars ? "★" : "☆";
    star.setAttribute("aria-pressed", String(at + 1 === stars));
  });
  if (document.activeElement !== $("note")) $("note").value = text;
  fillRedo();
}

// A note is saved when its field loses the focus, and before another image is shown.
function keepNote() {
  if (viewed >= 0) note(viewed, $("note").value.trim());
}

const wordsOf = (text) => text.trim().replace(/^\+\s*/, "");

// The button shows the price; buying takes a command.
function fillRedo() {
  const words = wordsOf($("note").value), price = cell("redo", viewed), { kind, note: kept } = markOf(viewed);
  const isAsked = kind === "rejected" && kept.startsWith("+") && wordsOf(kept) === words;
  $("redo-words").hidden = !hasImage(viewed) || !words || isAsked;
  $("redo-words").textContent = `Redo with these words: ${price === null ? "price unknown" : `about ${money(price)}`}`;
  $("redo-hint").textContent = isAsked ? `Rejected; its redo adds these words to the prompt: ${redoCommand()}` : "";
}

function redoWithWords() {
  const words = `+ ${wordsOf($("note").value)}`;
  $("note").value = words;
  change([viewed], () => ({ kind: "rejected", note: words }));
  fillMark();
  if (isAdvancing) advance(viewed);
}

// The before images of the slider: [link, name, the link's thumbnail].
function befores(index) {
  const input = cell("before", index), versions = cell("versions", index);
  const found = versions.map(([link, at], place) => [link, `version ${versions.length - place}${at ? `, ${moment(at)}` : ""}`, null]);
  if (input !== null) found.unshift([input, "before", cell("small", index)]);
  return found;
}

function fillVersions(index) {
  const found = befores(index), isShown = cell("image", index) !== null && found.length > 1;
  $("versions").hidden = !isShown;
  $("versions").replaceChildren(...(isShown ? found.map(([, name], at) => {
    const button = element("button", { type: "button", class: "quiet", "aria-pressed": String(at === beforeAt) }, name);
    button.addEventListener("click", () => { beforeAt = at; isComparing = isTrueSize = false; fillPicture(viewed); });
    return button;
  }) : []));
}

function fillPicture(index) {
  const source = cell("image", index), family = familyOf(index), before = befores(index)[beforeAt];
  picture.className = `picture${isTrueSize ? " true-size" : ""}`;
  if (isComparing && family.length > 1) picture.replaceChildren(comparison(family));
  else if (source === null) picture.replaceChildren(cell("before", index) === null ? blank(index) : large(cell("before", index), "Input image", { small: cell("small", index) }));
  else if (before && !isTrueSize) picture.replaceChildren(slider(before, source, index));
  else picture.replaceChildren(image(source, index));
  fillVersions(index);
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
    if (!$("place").textContent.endsWith(THUMBNAIL_ONLY)) $("place").textContent += THUMBNAIL_ONLY;
  });
}

function slider([before, name, small], after, index) {
  const shown = image(after, index), over = element("img", { src: before, alt: name, class: "over", draggable: "false" });
  shown.removeEventListener("click", toggleTrueSize);
  insteadOf(over, small, () => over.remove());
  const range = element("input", { type: "range", min: "0", max: "100", value: "50", step: "0.5", "aria-label": "Before and after", id: "slider" });
  const box = element("div", { class: "slider" }, shown, over, element("i", { class: "handle", "aria-hidden": "true" }),
    element("span", { class: "tag left", "aria-hidden": "true" }, name), element("span", { class: "tag right", "aria-hidden": "true" }, name === "before" ? "after" : "now"), range);
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
  const from = Math.floor(Math.max(family.indexOf(viewed), 0) / 9) * 9;
  for (const index of family.slice(from, from + 9)) {
    const source = cell("image", index);
    const shown = source === null ? blank(index) : element("img", { src: source, alt: "" });
    if (source !== null) insteadOf(shown, cell("thumb", index), () => shown.replaceWith(blank(index, "Not found")));
    const button = element("button", { type: "button", class: markOf(index).kind, "aria-label": label(index), "aria-current": index === viewed ? "true" : null },
      shown, familyLabel?.(index) ? element("span", { class: "id" }, familyLabel(index)) : idLabel(shortId(index)));
    button.addEventListener("click", () => goTo(index));
    grid.append(button);
  }
  return grid;
}

function fillVariants(index) {
  const family = familyOf(index);
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
    ["Matrix", pairs(axes, index).map(([axis, value]) => `${axis}: ${value}`).join(", ")],
    ["Tags", cell("tags", index).join(", ")],
    ["Size", cell("width", index) ? `${cell("width", index)} × ${cell("height", index)}` : ""],
    ["File", cell("bytes", index) ? `${bytes(cell("bytes", index))} · ${(cell("mime", index) ?? "").replace("image/", "")}` : ""],
    ["Signature", cell("signed", index) ? "C2PA; a conversion or an edit removes it" : ""],
    ["Price", cell("attempts", index) || cell("price", index) ? money(cell("price", index)) : ""],
    ["Attempts", String(cell("attempts", index) || "")],
    ["Took", cell("seconds", index) === null ? "" : `${cell("seconds", index)} s`],
    ["Made", cell("time", index) === null ? "" : moment(cell("time", index))],
    ["SHA-256", (cell("sha256", index) ?? "").slice(0, 16)],
    ["Fingerprint", cell("fingerprint", index)],
    ...pairs(fields, index),
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
  isComparing = !isComparing && familyOf(viewed).length > 1;
  fillPicture(viewed);
}

// A closing dialog returns the focus to where it was opened, but only later: a key that is pressed in between would mark
// the wrong image. So the focus is set at once.
function closeViewer() {
  const last = viewed;
  keepNote();
  viewed = -1;
  viewer.close();
  picture.replaceChildren();
  if (places.has(last)) setCurrent(last);
  focusCurrent();
}
viewer.addEventListener("cancel", (event) => { event.preventDefault(); closeViewer(); });
// After a click on a button the keys belong to the viewer again; the keyboard's own focus stays where it is.
viewer.addEventListener("click", (event) => { if (event.detail && event.target.closest("button")) $("stage").focus({ preventScroll: true }); });
$("note").addEventListener("input", fillRedo);
$("note").addEventListener("change", keepNote);
$("redo-words").addEventListener("click", redoWithWords);
$("close").addEventListener("click", closeViewer);
$("prev").addEventListener("click", () => stepViewer(-1));
$("next").addEventListener("click", () => stepViewer(1));
