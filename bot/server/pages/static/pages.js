// The pages work without this script; with it they stay current, and a command is copied by one click.
"use strict";

(() => {
  const main = document.getElementById("main");
  let tag = null;
  let failures = 0;

  function words(seconds) {
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
    }
    return "just now";
  }

  function sayTimes() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = Date.parse(time.dateTime);
      if (Number.isNaN(moment)) continue;
      const said = words((Date.now() - moment) / 1000);
      if (time.textContent !== said) time.textContent = said;
    }
  }

  function sayState(said) {
    const place = document.querySelector("[data-live-state]");
    if (place && place.textContent !== said) place.textContent = said;
  }

  // What a person has unfolded stays unfolded, and where the focus was it comes back to.
  function replace(old, fresh) {
    const folds = new Map([...old.querySelectorAll("details[id]")].map((fold) => [fold.id, fold.open]));
    const links = [...old.querySelectorAll("a, button, summary")];
    const focused = links.indexOf(document.activeElement);
    const made = document.importNode(fresh, true);
    for (const fold of made.querySelectorAll("details[id]")) if (folds.has(fold.id)) fold.open = folds.get(fold.id);
    old.replaceWith(made);
    if (focused >= 0) made.querySelectorAll("a, button, summary")[focused]?.focus({ preventScroll: true });
  }

  const shown = new Map();

  function lay(page) {
    for (const fresh of page.querySelectorAll("[data-live][id]")) {
      const html = fresh.outerHTML;
      const old = document.getElementById(fresh.id);
      if (!old || shown.get(fresh.id) === html) continue;
      if (old.contains(document.getSelection()?.anchorNode) && !document.getSelection().isCollapsed) continue;
      shown.set(fresh.id, html);
      replace(old, fresh);
    }
    document.title = page.title;
    const fresh = page.getElementById("main");
    if (fresh?.dataset.refresh) main.dataset.refresh = fresh.dataset.refresh;
    else delete main.dataset.refresh;
    dress();
    sayTimes();
  }

  async function look() {
    if (document.hidden) return;
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const reply = await fetch(location.pathname + location.search, { headers, cache: "no-store", credentials: "same-origin" });
      failures = 0;
      sayState("");
      if (reply.redirected) location.reload();
      if (reply.status === 304 || !reply.ok || reply.redirected) return;
      tag = reply.headers.get("ETag");
      lay(new DOMParser().parseFromString(await reply.text(), "text/html"));
    } catch {
      failures += 1;
      if (failures >= 3) sayState("The server does not answer; this page is kept as it was.");
    }
  }

  async function watch() {
    const seconds = Number(main.dataset.refresh);
    if (!seconds) return;
    await new Promise((go) => setTimeout(go, 1000 * seconds * (failures ? 3 : 1)));
    await look();
    watch();
  }

  function dress() {
    for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // Without https a page may not write to the clipboard; selected, it is one key away.
      document.getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2500);
  });

  for (const part of document.querySelectorAll("[data-live][id]")) shown.set(part.id, part.outerHTML);
  dress();
  sayTimes();
  setInterval(sayTimes, 10000);
  document.addEventListener("visibilitychange", look);
  watch();
})();
