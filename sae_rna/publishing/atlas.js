// The index: search, filters and sorting, remembered in the address (index.html#layer=5&search=stem).
(() => {
  const table = document.getElementById("index"), body = table.tBodies[0], rows = [...body.rows];
  const form = document.getElementById("filters"), heads = [...table.tHead.rows[0].cells];
  const text = (row, column) => row.cells[column].textContent;
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const filters = heads.map((head, column) => [head.dataset.filter, column]).filter(([name]) => name);
  const number = (words) => (words === "–" ? -Infinity : parseFloat(words.replace("−", "-").replace(/^L/, "")));

  for (const [name, column] of filters) {
    const label = document.createElement("label"), select = document.createElement("select");
    const values = [...new Set(rows.map((row) => text(row, column)))];
    values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    select.name = name;
    select.add(new Option("all", ""));
    values.forEach((value) => select.add(new Option(value, value)));
    label.append(name + " ", select);
    form.append(label);
  }

  const show = () => {
    const asked = form.elements.search.value.toLowerCase();
    const wanted = filters.map(([name, column]) => [form.elements[name].value, column]).filter(([value]) => value);
    let count = 0;
    for (const row of rows) {
      const fits = words.get(row).includes(asked) && wanted.every(([value, column]) => text(row, column) === value);
      row.hidden = !fits;
      count += fits;
    }
    document.getElementById("count").textContent = `${count} of ${rows.length}`;
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      const sign = way === "ascending" ? 1 : -1, numeric = rows.some((row) => row.cells[column].className === "n");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      const keys = new Map(rows.map((row) => [row, numeric ? number(text(row, column)) : text(row, column)]));
      const compare = (a, b) => (numeric ? a - b || 0 : a.localeCompare(b, "en", { numeric: true }));
      rows.sort((a, b) => sign * compare(keys.get(a), keys.get(b)));
      body.append(...rows);
    });
  });

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const set = [...new FormData(form)].filter(([, value]) => value);
    history.replaceState(null, "", "#" + new URLSearchParams(set));
    show();
  });
  for (const [name, value] of new URLSearchParams(location.hash.slice(1)))
    if (form.elements[name]) form.elements[name].value = value;
  form.hidden = false;
  show();
})();
