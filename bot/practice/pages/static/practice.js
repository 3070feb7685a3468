// The pages work without this script; with it they stay current, say how long ago, and preview what is typed.
"use strict";

(() => {
  const POLL_MILLISECONDS = 1000;

  // Times -------------------------------------------------------------------------------------------------------
  const UNITS = [[31536000, "year"], [2592000, "month"], [86400, "day"], [3600, "hour"], [60, "minute"]];
  const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

  function sayTimes() {
    const now = Date.now();
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = Date.parse(time.dateTime);
      if (Number.isNaN(moment)) continue;
      const seconds = Math.round((moment - now) / 1000);
      const unit = UNITS.find(([size]) => Math.abs(seconds) >= size);
      const words = unit ? ago.format(Math.trunc(seconds / unit[0]), unit[1]) : "just now";
      if (!time.title) time.title = new Date(moment).toLocaleString();
      if (time.textContent !== words) time.textContent = words;
    }
  }

  // Keeping the page current: the new page is laid over the old one, node by node, so that what somebody types,
  // has unfolded or has scrolled to stays where it is. -------------------------------------------------------------
  function key(node) {
    return node.nodeType === Node.ELEMENT_NODE && node.id ? node.id : null;
  }

  function alike(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
  }

  const OURS = { DETAILS: ["open"], TEXTAREA: ["value"], INPUT: ["value", "checked"], OPTION: ["selected"] };

  function copyAttributes(from, to) {
    const kept = OURS[to.nodeName] || [];
    for (const { name, value } of from.attributes) {
      if (!kept.includes(name) && to.getAttribute(name) !== value) to.setAttribute(name, value);
    }
    for (const { name } of [...to.attributes]) {
      const scripted = name === "title" && to.nodeName === "TIME";
      if (!kept.includes(name) && !from.hasAttribute(name) && !scripted) to.removeAttribute(name);
    }
  }

  function beingEdited(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return false;
    if (node.nodeName === "TEXTAREA" || node.nodeName === "INPUT") return node.value !== node.defaultValue;
    return false;
  }

  function holdsWork(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return false;
    if (node.contains(document.activeElement) && /^(TEXTAREA|INPUT|SELECT)$/.test(document.activeElement.nodeName)) return true;
    return [...node.querySelectorAll("textarea, input")].some(beingEdited);
  }

  function lay(from, to) {
    if (from.nodeType === Node.TEXT_NODE || from.nodeType === Node.COMMENT_NODE) {
      if (to.nodeValue !== from.nodeValue) to.nodeValue = from.nodeValue;
      return;
    }
    if (to.nodeName === "TIME" && to.dateTime === from.dateTime) return;
    if (to.hasAttribute("data-editor") || to.hasAttribute("data-live-state")) return;
    if (to.nodeName === "TEXTAREA" || to.nodeName === "SELECT") return;
    copyAttributes(from, to);
    layChildren(from, to);
  }

  function layChildren(from, to) {
    const byKey = new Map();
    for (const child of to.children) if (child.id) byKey.set(child.id, child);
    let place = to.firstChild;
    for (const wanted of [...from.childNodes]) {
      const id = key(wanted);
      let found = id ? byKey.get(id) : null;
      if (!found) {
        if (!id && place && !key(place) && alike(place, wanted)) found = place;
      }
      if (found && alike(found, wanted)) {
        if (found !== place) to.insertBefore(found, place);
        lay(wanted, found);
        place = found.nextSibling;
      } else {
        to.insertBefore(document.importNode(wanted, true), place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      if (!holdsWork(place)) place.remove();
      place = next;
    }
  }

  let tag = null;
  let failures = 0;

  function sayState(words) {
    const place = document.querySelector("[data-live-state]");
    if (place && place.textContent !== words) place.textContent = words;
  }

  async function look() {
    if (document.hidden) return;
    try {
      const headers = { "X-Practice-Live": "1" };
      if (tag) headers["If-None-Match"] = tag;
      const reply = await fetch(location.pathname + location.search, { headers, cache: "no-store", credentials: "same-origin" });
      failures = 0;
      sayState("");
      if (reply.status === 304) {
        tag = reply.headers.get("ETag") || tag;
        return;
      }
      if (!reply.ok || reply.redirected) return;
      tag = reply.headers.get("ETag");
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      document.title = page.title;
      for (const id of ["main"]) lay(page.getElementById(id), document.getElementById(id));
      const nav = document.querySelector(".repo-head");
      const newNav = page.querySelector(".repo-head");
      if (nav && newNav) lay(newNav, nav);
      dress(document);
      sayTimes();
    } catch {
      failures += 1;
      if (failures >= 3) sayState("The forge does not answer; this page is kept as it was.");
    }
  }

  async function watch() {
    await look();
    setTimeout(watch, failures ? 5 * POLL_MILLISECONDS : POLL_MILLISECONDS);
  }

  // Small comforts ----------------------------------------------------------------------------------------------
  async function preview(editor, on) {
    const text = editor.querySelector("textarea");
    const shown = editor.querySelector(".preview");
    editor.querySelector("[data-write]").setAttribute("aria-pressed", String(!on));
    editor.querySelector("[data-preview]").setAttribute("aria-pressed", String(on));
    text.hidden = on;
    shown.hidden = !on;
    if (!on) return text.focus();
    const body = new URLSearchParams({ csrf: text.form.elements.csrf.value, body: text.value, repository: editor.dataset.repository });
    const reply = await fetch("/-/preview", { method: "POST", body });
    // What comes back has passed the forge's sanitiser, as every comment has.
    if (reply.ok) shown.innerHTML = (await reply.text()) || "<p>Nothing to preview.</p>";
    else shown.textContent = "The preview could not be made.";
  }

  function dress(root) {
    for (const tabs of root.querySelectorAll(".editor-tabs[hidden]")) tabs.hidden = false;
  }

  document.addEventListener("click", (event) => {
    const tab = event.target.closest("[data-write], [data-preview]");
    if (tab) preview(tab.closest("[data-editor]"), tab.hasAttribute("data-preview"));
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const menu = event.target.closest?.("details.menu[open]");
      if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.form && event.target.nodeName === "TEXTAREA") {
      event.target.form.requestSubmit([...event.target.form.querySelectorAll("button.primary")].pop());
    }
  });

  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
    else if (event.target.hasAttribute("data-instant")) sendInPlace(event);
  });

  // A ticked box changes at once and the page stays where it is; without the script the form is sent as a page.
  async function sendInPlace(event) {
    event.preventDefault();
    const box = event.submitter;
    const body = new URLSearchParams(new FormData(event.target, box));
    box.setAttribute("aria-checked", box.getAttribute("aria-checked") === "true" ? "false" : "true");
    box.disabled = true;
    const reply = await fetch(event.target.action, { method: "POST", body }).catch(() => null);
    box.disabled = false;
    if (!reply || !reply.ok) {
      const page = reply && new DOMParser().parseFromString(await reply.text(), "text/html");
      window.alert(page?.querySelector(".message p")?.textContent || "The forge does not answer.");
    }
    tag = null;
    look();
  }

  function openTarget() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  }

  dress(document);
  sayTimes();
  openTarget();
  setInterval(sayTimes, 10000);
  window.addEventListener("hashchange", openTarget);
  document.addEventListener("visibilitychange", look);
  setTimeout(watch, POLL_MILLISECONDS);
})();
