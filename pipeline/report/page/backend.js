// Where marks are saved: beside the ledger when the page is served by `imgpipe judge`, else in the browser. Both take
// changes of single fields, so that two open windows never overwrite each other's.
// start(onMarks): begin; `onMarks(ids)` is called when another window changed marks. write([[index, patch]]): save
// changes. merge(marks): save those that are later; returns the ids that changed.

function browserBackend() {
  const key = `imgpipe:marks:${data.key}`;
  const kept = () => {
    try { return fromPicks(JSON.parse(remembered(key) ?? "{}"), 0); } catch { return new Map(); /* not written by this page */ }
  };
  const keep = () => {
    const isKept = remember(key, toPicks(marks));
    announce(isKept ? "" : "This browser keeps no marks of this page: save the picks before it is closed");
  };
  return {
    start(onMarks) {
      takeMarks(kept());
      window.addEventListener("storage", (event) => { if (event.key === key) onMarks(takeMarks(kept())); });
    },
    write(changes) {
      takeMarks(kept());  // what another window wrote since
      for (const [index, patch] of changes) marks.set(cell("id", index), patched(index, patch));
      keep();
    },
    merge(found) {
      takeMarks(kept());
      const changed = takeMarks(found);
      keep();
      return changed;
    },
  };
}

const POLL_MS = 700, POLL_HIDDEN_MS = 30000, MOST_BODY = 30000;  // bytes; the server takes 64 KB

function ledgerBackend() {
  let change = data.judge.change, onMarks = () => {}, isSending = false, timer = 0;
  let waiting = [];  // changes that the server has not taken yet

  async function ask(body) {
    const answer = await fetch(body ? "marks" : `marks?since=${change}`, body && {
      method: "POST", body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", "X-Imgpipe-Write": data.judge.secret },
    });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }

  // What was found while changes wait is left out, and asked for again: it would hide them until they are saved.
  function take(found) {
    if (waiting.length) return;
    change = found.change;
    onMarks(takeMarks(new Map(Object.entries(found.marks))));
  }

  function batch() {
    const edits = {};
    let count = 0, sum = 0;
    for (const [id, edit] of waiting) {
      sum += new Blob([JSON.stringify([id, edit])]).size;
      if (count && sum > MOST_BODY) break;
      edits[id] = { ...edits[id], ...edit };
      count += 1;
    }
    return { edits, count };
  }

  async function flush() {
    if (isSending) return;
    isSending = true;
    try {
      while (waiting.length) {
        const { edits, count } = batch();
        const found = await ask({ since: change, edits });
        waiting = waiting.slice(count);
        take(found);
      }
      announce("");
    } catch (error) {
      announce(`${whole.format(waiting.length)} not saved: ${error instanceof TypeError ? "imgpipe judge has ended" : error.message}`);
    }
    isSending = false;
  }

  async function poll() {
    clearTimeout(timer);
    if (waiting.length) await flush();
    else if (!isSending) {
      try {
        const found = await ask();
        take(found);
        announce("", found.isStale);
      } catch (error) {
        announce(error instanceof TypeError ? "imgpipe judge has ended; start it again to continue" : error.message);
      }
    }
    timer = setTimeout(poll, document.hidden ? POLL_HIDDEN_MS : POLL_MS);
  }

  return {
    start(listener) {
      onMarks = listener;
      document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
      window.addEventListener("beforeunload", (event) => { if (waiting.length) event.preventDefault(); });
      poll();
    },
    write(changes) {
      for (const [index, patch] of changes) {
        marks.set(cell("id", index), patched(index, patch));
        waiting.push([cell("id", index), { sha256: cell("sha256", index) ?? "", ...patch }]);
      }
      flush();
    },
    merge(found) {
      const changes = [];
      for (const [id, { kind, stars, note }] of found) {
        const index = indexOf.get(id), there = marks.get(id);
        if (index === undefined || !isOf(found.get(id), index) || (there && there.at > found.get(id).at)) continue;
        changes.push([index, { kind, stars, note }]);
      }
      this.write(changes);
      return changes.map(([index]) => cell("id", index));
    },
  };
}

// One line that stays visible: what was not saved, or that a run goes on.
function announce(trouble, isStale = false) {
  const line = $("announce");
  line.hidden = !trouble && !isStale;
  line.classList.toggle("bad", Boolean(trouble));
  const text = trouble || "A run has changed tasks of this page";
  if (!line.hidden && $("announced").textContent !== text) $("announced").textContent = text;
  $("reload").hidden = Boolean(trouble);
}

const backend = isServed ? ledgerBackend() : browserBackend();
