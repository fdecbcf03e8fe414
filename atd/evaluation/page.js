"use strict";
// A click on a column's head sorts its table, a second one the other way round.
for (const head of document.querySelectorAll("table.sortable th")) {
  head.querySelector("button").addEventListener("click", () => {
    const table = head.closest("table");
    const order = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const text = row => row.cells[head.cellIndex].textContent;
    const number = row => ["∞", "equal"].includes(text(row)) ? Infinity : parseFloat(text(row));
    const rows = [...table.rows].slice(1);
    const numeric = head.cellIndex > 0 && rows.every(row => !Number.isNaN(number(row)));
    const ascending = (a, b) => numeric ? number(a) < number(b) ? -1 : number(a) > number(b) ? 1 : 0
      : text(a).localeCompare(text(b), undefined, { numeric: true });
    rows.sort((a, b) => order === "ascending" ? ascending(a, b) : ascending(b, a));
    table.tBodies[0].append(...rows);
  });
}
// The handle below a pair of images, and the pair itself, move the line between them.
for (const slider of document.querySelectorAll(".slider")) {
  const pair = slider.querySelector(".pair"), handle = slider.querySelector("input");
  const move = share => {
    handle.value = share;
    pair.style.setProperty("--at", `${share}%`);
  };
  handle.addEventListener("input", () => move(handle.value));
  const follow = event => {
    const box = pair.getBoundingClientRect();
    move(Math.round(Math.min(Math.max(100 * (event.clientX - box.left) / box.width, 0), 100)));
  };
  pair.addEventListener("pointerdown", event => { pair.setPointerCapture(event.pointerId); follow(event); });
  pair.addEventListener("pointermove", event => { if (event.buttons) follow(event); });
}
