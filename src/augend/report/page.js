"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const sort = (column, up) => {
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    headers[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const cell = row.cells[column];
      if (column === 0) return cell.textContent;
      const number = parseFloat(cell.dataset.sort ?? cell.textContent);
      return Number.isNaN(number) ? (up ? Infinity : -Infinity) : number;  // what is not known comes last
    };
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = typeof x === "string" ? x.localeCompare(y) : x === y ? 0 : x - y;
      return up ? order : -order;
    });
    body.append(...rows);
  };
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      sort(column, header.getAttribute("aria-sort") === "descending" || (column === 0 && !header.hasAttribute("aria-sort")));
    });
  });
  if (table.classList.contains("stack")) {  // on a phone there are no headers to press
    const select = document.createElement("select");
    select.setAttribute("aria-label", "Sort the recipes by");
    const first = document.createElement("option");
    first.textContent = "Sort by …";
    first.disabled = first.selected = true;
    select.append(first);
    headers.forEach((header, column) => {
      const cheap = column === 0 || /cost|time/i.test(header.textContent);  // the least comes first
      const option = document.createElement("option");
      option.value = `${column} ${cheap ? 1 : 0}`;
      option.textContent = header.textContent.trim();
      select.append(option);
    });
    select.addEventListener("change", () => {
      const [column, up] = select.value.split(" ").map(Number);
      sort(column, up === 1);
    });
    select.className = "sorter";
    table.before(select);
  }
}
for (const closed of document.querySelectorAll("details")) {  // on paper everything is open
  addEventListener("beforeprint", () => { closed.dataset.was = closed.open; closed.open = true; });
  addEventListener("afterprint", () => { closed.open = closed.dataset.was === "true"; });
}
