// Swaps the token in the address for a cookie, once, and opens the desk.
(async () => {
  const token = location.hash.slice(1);
  history.replaceState(null, "", "/");
  if (token) {
    const answer = await fetch("/session", { method: "POST", body: token });
    if (answer.ok) return location.replace("/");
  }
  document.getElementById("closed").hidden = false;
})();
