// Exchanges the token in the address for a cookie, once, and opens the page; the same browser finds it again.
// localStorage belongs to this port alone, a cookie would not.
(async () => {
  const token = location.hash.slice(1);
  history.replaceState(null, "", "/");
  const known = localStorage.getItem("imgpipe:path");
  const answer = token ? await fetch("/session", { method: "POST", body: token }) : null;
  const path = answer?.ok ? await answer.text() : known;
  if (path && (answer?.ok || (await fetch(path)).ok)) {
    localStorage.setItem("imgpipe:path", path);
    location.replace(path);
  } else document.getElementById("closed").hidden = false;
})();
