// Layout, without elements: images in order, in groups -> lines with positions. Every image keeps its aspect ratio.
const CAPTION = 22, GAP = 10, HEADER = 54;

// sections: [{title, note, items: [index]}] -> {lines: [{y, height, header?, tiles?: [{index, x, width, height}]}], height}
function place(sections, width, wanted) {
  const lines = [];
  let y = 0;
  for (const section of sections) {
    if (section.title) {
      lines.push({ y, height: HEADER, header: section });
      y += HEADER;
    }
    let line = [], sum = 0;
    for (const index of section.items) {
      const ratio = aspect(index);
      line.push({ index, ratio });
      sum += ratio;
      if (sum * wanted + GAP * (line.length - 1) >= width) {
        y = closeLine(lines, line, sum, width, Math.min((width - GAP * (line.length - 1)) / sum, wanted * 1.25), y);
        line = [];
        sum = 0;
      }
    }
    if (line.length) y = closeLine(lines, line, sum, width, wanted, y);
    if (section.title) y += GAP * 2;
  }
  return { lines, height: y };
}

function closeLine(lines, line, sum, width, height, y) {
  let x = 0;
  const tiles = line.map(({ index, ratio }) => {
    const tile = { index, x, width: Math.min(ratio * height, width), height };
    x += tile.width + GAP;
    return tile;
  });
  lines.push({ y, height: height + CAPTION, tiles });
  return y + height + CAPTION + GAP;
}

// The first line whose lower edge is below y.
function lineAt(lines, y) {
  let low = 0, high = lines.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lines[middle].y + lines[middle].height < y) low = middle + 1;
    else high = middle;
  }
  return low;
}
