const table = document.querySelector("table.main");
if (table) {
  const bodies = () => [...table.tBodies];
  const value = (body, column) => body.rows[0].cells[column].dataset.v ?? body.rows[0].cells[column].innerText.trim();
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.tHead.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // what is not there comes last, either way
        const order = head.classList.contains("n") ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return up ? order : -order;
      };
      table.append(...bodies().sort(compare));
    };
  });
  const filter = Object.assign(document.createElement("input"), { type: "search", className: "filter", placeholder: "Filter by method or dataset" });
  filter.setAttribute("aria-label", "Filter by method or dataset");
  const named = (body) => [...body.rows[0].querySelectorAll("td:not(.n)")].map((cell) => cell.textContent).join(" ").toLowerCase();
  filter.oninput = () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    bodies().forEach((body) => { body.hidden = !words.every((word) => named(body).includes(word)); });
  };
  table.parentElement.before(filter);
}
