"use strict";
// Tables sort by a click on a heading: numbers as numbers, empty cells last.
const numberOf = (text) => (text.trim() === "" ? NaN : Number(text));
function compare(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (!isNaN(x) && !isNaN(y)) return x - y;
  return a.localeCompare(b, undefined, { numeric: true });
}
function sortBy(heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  const column = heading.cellIndex;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = heading.closest("table").tBodies[0];
  const value = (row) => row.cells[column].dataset.value;
  const [full, empty] = [[], []];
  for (const row of body.rows) (value(row) === "" ? empty : full).push(row);
  full.sort((a, b) => (down ? -1 : 1) * compare(value(a), value(b)));
  body.append(...full, ...empty);
}
// The heading of numbers stands above them.
for (const table of document.querySelectorAll("table.sortable")) {
  [...(table.tBodies[0].rows[0]?.cells ?? [])].forEach((cell, k) =>
    table.tHead.rows[0].cells[k].classList.toggle("number", cell.classList.contains("number")));
}
// Rows show that have every word of the filter; key<1, key>=0.5 or key=x asks one column.
function filterOf(text, keys) {
  return text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [, key, sign, wanted] = word.match(/^(.+?)(<=|>=|<|>|=)(.*)$/) || [];
    const column = keys.indexOf(key);
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(word);
    return (row) => {
      const value = row.cells[column].dataset.value.toLowerCase();
      const [x, y] = [numberOf(value), numberOf(wanted)];
      if (sign === "=") return isNaN(x) || isNaN(y) ? value === wanted : x === y;
      if (isNaN(x) || isNaN(y)) return false;
      return { "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y }[sign];
    };
  });
}
function filterRows(table, text, count) {
  const keys = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.key.toLowerCase());
  const tests = filterOf(text, keys);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) row.hidden = !tests.every((test) => test(row));
  const shown = rows.filter((row) => !row.hidden).length;
  count.textContent = text.trim() ? `${shown} of ${rows.length}` : "";
}
for (const heading of document.querySelectorAll("table.sortable th[data-key]")) {
  heading.querySelector("button").addEventListener("click", () => sortBy(heading));
}
for (const input of document.querySelectorAll(".filter input")) {
  const box = input.closest(".table");
  const update = () => filterRows(box.querySelector("table"), input.value, box.querySelector(".count"));
  input.addEventListener("input", update);
  update(); // a browser may keep what was typed when a page is loaded again
}
// Ticked runs show the command that compares them, and the page where it is there already.
function showTicked(box, ticks) {
  const ticked = ticks.filter((tick) => tick.checked);
  const command = `python -m classifier.report ${ticked.map((tick) => tick.dataset.folder).join(" ")}`;
  const key = ticked.map((tick) => tick.dataset.run).sort().join("\n");
  const page = JSON.parse(box.dataset.comparisons)[key];
  const message = box.querySelector("p");
  box.hidden = ticked.length === 0;
  box.querySelector(".copyable").hidden = ticked.length < 2;
  box.querySelector("code").textContent = box.querySelector("button").dataset.copy = command;
  message.textContent = ticked.length < 2 ? "One run is ticked: tick another one. " : `${ticked.length} runs are ticked. `;
  if (page) {
    const link = Object.assign(document.createElement("a"), { href: encodeURIComponent(page), textContent: "Their comparison" });
    message.append(link);
  } else if (ticked.length > 1) message.append("This command compares them:");
}
for (const box of document.querySelectorAll(".ticked")) {
  const ticks = [...document.querySelectorAll(".tick input")];
  for (const tick of ticks) tick.addEventListener("change", () => showTicked(box, ticks));
  showTicked(box, ticks);
}
// A table that goes on at a side fades there.
for (const box of document.querySelectorAll(".scroll")) {
  const update = () => {
    const left = Math.abs(box.scrollLeft);
    box.classList.toggle("more-left", left > 1);
    box.classList.toggle("more-right", left + box.clientWidth < box.scrollWidth - 1);
  };
  box.addEventListener("scroll", update, { passive: true });
  new ResizeObserver(update).observe(box); // also where it comes to be shown
}
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.parentNode.querySelector("code"));
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}
for (const button of document.querySelectorAll("button.all")) {
  button.addEventListener("click", () => {
    button.closest(".table").querySelector("table").classList.remove("first");
    button.remove();
  });
}
// What leads to a job of a sweep, a link or the row of its setting, shows the job's curve.
const panel = document.querySelector("#curve");
if (panel) {
  const curves = JSON.parse(panel.dataset.curves); // by link: epochs and losses
  const [best] = Object.values(curves);
  const height = (loss) => Math.log(Math.max(loss, 1e-12));
  const path = (shown, [low, high], last) =>
    shown.map(([epochs, losses]) =>
      epochs.map((epoch, k) => {
        const share = (height(losses[k]) - height(low)) / (height(high) - height(low) || 1);
        return `${k ? "L" : "M"}${((240 * epoch) / last).toFixed(1)},${(86 - 82 * share).toFixed(1)}`;
      }).join("")).join("");
  const show = (event) => {
    const place = event.target.closest("a[href], .sortable tbody tr");
    const links = place ? (place.matches("a") ? [place] : [...place.querySelectorAll("a[href]")]) : [];
    const names = [...new Set(links.map((link) => link.getAttribute("href")))].filter((name) => curves[name]);
    panel.hidden = names.length === 0;
    if (panel.hidden) return;
    const shown = names.map((name) => curves[name]);
    const losses = [best, ...shown].flatMap((curve) => curve[1]);
    const range = [Math.min(...losses), Math.max(...losses)];
    const last = Math.max(1, ...[best, ...shown].map((curve) => curve[0].at(-1)));
    panel.querySelector(".soft").setAttribute("d", path([best], range, last));
    panel.querySelector(".val").setAttribute("d", path(shown, range, last));
    const jobs = names.map((name) => decodeURIComponent(name.split("/")[0]));
    panel.querySelector("figcaption").textContent = `Validation loss by epoch, job ${jobs.join(", ")}`;
    panel.querySelector("small").textContent =
      `${range[0]} to ${range[1]} (log), epochs to ${last}; grey: the best`;
  };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
}
