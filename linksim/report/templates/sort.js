"use strict";
// A button in the head of a column sorts its table; rows name their detector
(() => {
  function sortBy(button) {
    const th = button.closest("th");
    const row = th.parentNode;
    const column = [...row.children].indexOf(th);
    const descending = th.getAttribute("aria-sort") === "ascending";
    [...row.children].forEach((h) => h.setAttribute("aria-sort", "none"));
    th.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = th.closest("table").tBodies[0];
    const key = (tr) => {
      const cell = tr.children[column];
      if (column === 0) return tr.dataset.detector;
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const sign = descending ? -1 : 1;
    const rows = [...body.rows].sort((one, other) => {
      const a = key(one), b = key(other);
      if (a === null || b === null) return (a === null) - (b === null); // unknown values go last
      return sign * (a < b ? -1 : a > b ? 1 : 0);
    });
    body.append(...rows);
  }

  document.querySelectorAll("[data-sort]").forEach((button) => {
    button.addEventListener("click", () => sortBy(button));
  });
})();
