// Swaps the token in the address for a cookie, once, and opens the desk; the same browser finds it again. What is kept
// here belongs to this port alone, other than a cookie.
(async () => {
  const token = location.hash.slice(1);
  history.replaceState(null, "", "/");
  const known = localStorage.getItem("imgpipe:desk");
  const answer = token ? await fetch("/session", { method: "POST", body: token }) : null;
  const path = answer?.ok ? await answer.text() : known;
  if (path && (answer?.ok || (await fetch(path)).ok)) {
    localStorage.setItem("imgpipe:desk", path);
    location.replace(path);
  } else document.getElementById("closed").hidden = false;
})();
