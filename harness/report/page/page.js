// SPDX-License-Identifier: GPL-2.0-or-later
// The page is complete without this.  It adds: a filter, sorting, zoom, hover and keys.  No text becomes markup.
"use strict";
(() => {
  const $ = (s, o) => [...(o || document).querySelectorAll(s)];
  const make = (tag, props) => Object.assign(document.createElement(tag), props);

  // --- the table
  const table = document.getElementById("runs");
  if (table) {
    const body = table.tBodies[0], tools = make("div", {className: "tools"});
    const box = make("input", {type: "search", id: "filter", placeholder: table.dataset.hint});
    const count = make("span", {className: "dim", id: "shown"});
    const bad = make("input", {type: "checkbox", id: "only-bad"});
    const label = make("label", {textContent: " not green only"});
    label.prepend(bad);
    bad.style.minWidth = "0";
    tools.append(box, label, count);
    table.before(tools);
    const words = new Map($("tr", body).map(r => [r, r.textContent.toLowerCase()]));
    const filter = () => {
      const want = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const [row, text] of words) {
        row.hidden = !(want.every(w => text.includes(w)) && !(bad.checked && row.dataset.green === "1"));
        n += !row.hidden;
      }
      count.textContent = `${n} of ${words.size}`;
    };
    box.addEventListener("input", filter);
    bad.addEventListener("change", filter);
    filter();
    const value = (row, i) => row.cells[i] ? (row.cells[i].dataset.v ?? row.cells[i].textContent.trim()) : "";
    $("th[data-sort]", table).forEach(th => {
      th.tabIndex = 0;
      const sort = () => {
        const i = +th.dataset.sort, down = th.getAttribute("aria-sort") === "ascending";
        $("th[aria-sort]", table).forEach(o => o.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = $("tr", body).sort((a, b) => value(a, i).localeCompare(value(b, i), "en", {numeric: true}));
        if (down) rows.reverse();
        body.append(...rows);
      };
      th.addEventListener("click", sort);
      th.addEventListener("keydown", e => { if (e.key === "Enter") sort(); });
    });
  }

  // --- a link into a folded section opens it
  const open = () => {
    const at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = at && (at.closest("details") || at.querySelector("details"));
    if (fold) { fold.open = true; at.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();

  // --- timelines
  const tip = make("div", {id: "tip-box", hidden: true});
  document.body.append(tip);
  const NS = "http://www.w3.org/2000/svg";
  const says = JSON.parse(document.getElementById("looks").textContent);
  const enliven = svg => {
    const d = svg.dataset, left = +d.left, width = +d.width, span = +d.span;
    const zoom = svg.querySelector(".zoom"), axis = svg.querySelector(".axis");
    for (const t of svg.querySelectorAll("title")) {  // shown by us, with the time
      t.parentNode.dataset.text = t.textContent;
      t.remove();
    }
    let scale = 1, from = 0;  // from: in units of the unzoomed width
    const ms = x => (x / width * span / 1e6).toFixed(3);
    const draw = () => {
      from = Math.max(0, Math.min(from, width - width / scale));
      zoom.setAttribute("transform", `matrix(${scale} 0 0 1 ${-from * scale} 0)`);
      $("text", axis).forEach((t, n) => {
        t.textContent = (((from + width / scale * n / 10) / width) * span / 1e6).toFixed(scale > 20 ? 3 : 1) + (n ? "" : " ms");
      });
      svg.dataset.scale = scale;
      svg.dataset.from = from;
    };
    const by = (factor, at) => {
      const next = Math.max(1, Math.min(scale * factor, 5000));
      from = at - (at - from) * scale / next;
      scale = next;
      draw();
    };
    const unit = e => {
      const box = svg.getBoundingClientRect();
      return (e.clientX - box.left) / box.width * +d.all - left;
    };
    svg.addEventListener("wheel", e => {
      if (!e.ctrlKey && !svg.matches(":focus")) return;
      e.preventDefault();
      by(e.deltaY < 0 ? 1.3 : 1 / 1.3, from + Math.max(0, unit(e)) / scale);
    }, {passive: false});
    let drag = null;
    svg.addEventListener("pointerdown", e => { drag = {x: unit(e), from}; svg.focus({preventScroll: true}); });
    addEventListener("pointerup", () => { drag = null; });
    svg.addEventListener("dblclick", e => by(2, from + unit(e) / scale));
    svg.addEventListener("pointermove", e => {
      if (drag) { from = drag.from - (unit(e) - drag.x) / scale; draw(); }
      const x = unit(e);
      const on = e.target.closest && e.target.closest("[data-text]");
      tip.hidden = x < 0;
      const look = on && on.tagName === "rect" ? says[on.getAttribute("class")] + ": " : "";
      const long = on && on.tagName === "rect" ? `, ${ms(+on.getAttribute("width"))} ms long` : "";
      tip.textContent = `${ms(from + x / scale)} ms${on ? long + "\n" + look + on.dataset.text : ""}`;
      tip.style.left = Math.min(e.clientX + 12, innerWidth - 380) + "px";
      tip.style.top = e.clientY + 14 + "px";
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    svg.addEventListener("keydown", e => {
      const mid = from + width / scale / 2, step = width / scale / 8;
      const keys = {
        "+": () => by(1.5, mid), "=": () => by(1.5, mid), "-": () => by(1 / 1.5, mid),
        "ArrowLeft": () => { from -= step; draw(); }, "ArrowRight": () => { from += step; draw(); },
        "0": () => { scale = 1; from = 0; draw(); },
        "d": () => {
          const mark = svg.querySelector(".div");
          if (!mark) return;
          const at = +mark.getAttribute("d").slice(1).split(" ")[0];
          scale = Math.max(scale, 20);
          from = at - width / scale / 2;
          draw();
        },
      };
      if (keys[e.key] && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); keys[e.key](); }
    });
    draw();
  };
  for (const svg of $("svg.tl")) {  // a page has hundreds: each when it is first pointed at
    const once = () => { if (!svg.dataset.scale) enliven(svg); };
    svg.addEventListener("pointerenter", once);
    svg.addEventListener("focus", once);
  }

  // --- keys of the page
  const sections = $("section.sc");
  addEventListener("keydown", e => {
    if (e.target.matches("input, svg") || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "/") { e.preventDefault(); document.getElementById("filter")?.focus(); }
    if (e.key !== "j" && e.key !== "k") return;
    const top = sections.findIndex(s => s.getBoundingClientRect().top > 5);
    const here = top < 0 ? sections.length : top;
    const to = sections[e.key === "j" ? (sections[here]?.getBoundingClientRect().top < 30 ? here + 1 : here) : here - 1];
    if (to) to.scrollIntoView();
  });
})();
